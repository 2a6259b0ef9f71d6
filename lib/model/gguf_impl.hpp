// gguf_impl: what the two halves of Gguf share: the parser (gguf_parse.cpp) and the lookups
// (gguf.cpp). Internal to lib/model.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <numeric>

#include "model/cursor.hpp"
#include "model/gguf.hpp"

namespace parley::model {

namespace gguf {

// GGUF's own numbers.
enum class Kind : uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

// Bytes of a value of fixed size; 0 for strings, arrays and numbers that are no kind.
constexpr uint64_t fixed_bytes(Kind kind) {
    switch (kind) {
        case Kind::u8:
        case Kind::i8:
        case Kind::boolean:
            return 1;
        case Kind::u16:
        case Kind::i16:
            return 2;
        case Kind::u32:
        case Kind::i32:
        case Kind::f32:
            return 4;
        case Kind::u64:
        case Kind::i64:
        case Kind::f64:
            return 8;
        case Kind::string:
        case Kind::array:
            break;
    }
    return 0;
}

// What a value takes at the least, so that a count can be refused before anything is walked.
constexpr uint64_t least_bytes(Kind kind) {
    if (kind == Kind::string) return 8;
    if (kind == Kind::array) return 12;
    return fixed_bytes(kind);
}

constexpr const char* name(Kind kind) {
    constexpr const char* kNames[] = {"uint8",  "int8",    "uint16",  "int16",  "uint32",
                                      "int32",  "float32", "boolean", "string", "array",
                                      "uint64", "int64",   "float64"};
    return kNames[static_cast<uint32_t>(kind)];
}

inline bool is_integer(Kind kind) {
    return kind <= Kind::i32 || kind == Kind::u64 || kind == Kind::i64;
}

// An integer of any width: magnitude and sign apart, so that all of uint64 and int64 fits.
struct Whole {
    uint64_t bits;
    bool negative;
};

inline Whole whole(Kind kind, const uint8_t* at) {
    const auto of = [](int64_t value) { return Whole{static_cast<uint64_t>(value), value < 0}; };
    switch (kind) {
        case Kind::u8:
            return {load<uint8_t>(at), false};
        case Kind::u16:
            return {load<uint16_t>(at), false};
        case Kind::u32:
            return {load<uint32_t>(at), false};
        case Kind::u64:
            return {load<uint64_t>(at), false};
        case Kind::i8:
            return of(load<int8_t>(at));
        case Kind::i16:
            return of(load<int16_t>(at));
        case Kind::i32:
            return of(load<int32_t>(at));
        default:
            return of(load<int64_t>(at));
    }
}

inline std::optional<int64_t> to_int64(Whole value) {
    if (!value.negative && value.bits > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(value.bits);
}

struct Entry {
    std::string_view key;
    Kind kind{};
    Kind element{};       // of an array
    uint64_t count = 0;   // of an array
    uint64_t offset = 0;  // of the value's first byte; of an array, its first element
};

// Names come from the file: shown in messages short and printable.
std::string quote(std::string_view text, size_t most = 64);

// Indices of `items` in the order of their names. Sorted rather than hashed: a hostile file can
// choose names that collide, it cannot make a sort slow.
template <class Items, class Name>
std::vector<uint32_t> sorted_by_name(const Items& items, Name name) {
    std::vector<uint32_t> order(items.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return name(items[a]) < name(items[b]); });
    return order;
}

template <class Items, class Name>
const typename Items::value_type* find_by_name(const Items& items,
                                               const std::vector<uint32_t>& order,
                                               std::string_view wanted, Name name) {
    const auto at =
        std::lower_bound(order.begin(), order.end(), wanted,
                         [&](uint32_t i, std::string_view key) { return name(items[i]) < key; });
    return at != order.end() && name(items[*at]) == wanted ? &items[*at] : nullptr;
}

inline std::string_view key_of(const Entry& entry) { return entry.key; }
inline std::string_view name_of(const Tensor& tensor) { return tensor.name; }

}  // namespace gguf

struct Gguf::Impl {
    std::vector<uint8_t> owned;  // of parse()
    void* mapping = nullptr;     // of open()
    std::span<const uint8_t> bytes;
    std::vector<gguf::Entry> entries;
    std::vector<uint32_t> entries_by_key;
    std::vector<Tensor> tensors;
    std::vector<uint32_t> tensors_by_name;
    std::once_flag hashed;
    std::string hash;

    Impl() = default;
    Impl(const Impl&) = delete;
    ~Impl() {
        if (mapping) munmap(mapping, bytes.size());
    }

    const gguf::Entry* find(std::string_view key) const {
        return gguf::find_by_name(entries, entries_by_key, key, gguf::key_of);
    }
    const uint8_t* at(const gguf::Entry& entry) const { return bytes.data() + entry.offset; }
    std::string_view string_at(uint64_t offset) const {
        const auto size = load<uint64_t>(bytes.data() + offset);
        return {reinterpret_cast<const char*>(bytes.data() + offset + 8), size};
    }

    base::Result<void> parse();
    base::Result<void> parse_metadata(Cursor& cursor, uint64_t count);
    base::Result<void> parse_tensors(Cursor& cursor, uint64_t count);
    std::string show_value(gguf::Kind kind, uint64_t offset) const;
};

}  // namespace parley::model
