// Cursor: reads little-endian values forward through bytes that nobody vouches for.
//
// Errors   the first read past the end latches failed(), and every later read gives zeros and empty
//          strings: a run of fields is checked once. Nothing outside the bytes is ever touched.
// Owns     nothing: strings point into the bytes.
// Threads  one.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace parley::model {

static_assert(std::endian::native == std::endian::little, "values are read as they lie");

template <class T>
T load(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
void append(std::string& out, T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out.append(bytes, sizeof value);
}

class Cursor {
  public:
    explicit Cursor(std::string_view bytes) : bytes_(bytes) {}

    uint64_t position() const { return position_; }
    uint64_t left() const { return bytes_.size() - position_; }
    bool failed() const { return failed_; }

    // The next `count` bytes; empty, with failed(), if there are not as many.
    std::string_view take(uint64_t count) {
        if (failed_ || count > left()) {
            failed_ = true;
            return {};
        }
        const std::string_view taken = bytes_.substr(position_, count);
        position_ += count;
        return taken;
    }
    template <class T>
    T value() {
        const std::string_view taken = take(sizeof(T));
        return taken.size() == sizeof(T) ? load<T>(taken.data()) : T{};
    }
    // A length of type Size, then as many bytes.
    template <class Size>
    std::string_view string() {
        const auto size = value<Size>();
        return take(size);
    }

  private:
    std::string_view bytes_;
    uint64_t position_ = 0;
    bool failed_ = false;
};

}  // namespace parley::model
