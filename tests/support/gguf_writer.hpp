// GgufWriter: builds small GGUF files in memory, well-formed ones and, by the raw calls, bad ones.
//
//   test::GgufWriter file;
//   file.string("general.architecture", "llama").u32("llama.block_count", 2);
//   file.tensor("output_norm.weight", kernels::Type::f32, {64}, bytes);
//   const std::vector<uint8_t> bytes = file.build();
//
// Units    a tensor's `data` must be as long as its type and dimensions say, unless the test means
// it
//          otherwise: nothing is checked here.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/types.hpp"

namespace parley::test {

class GgufWriter {
  public:
    uint32_t version = 3;
    uint64_t alignment = 32;  // of the tensor data; call u32("general.alignment", …) too if not 32

    GgufWriter& u32(std::string_view key, uint32_t value) { return scalar(key, 4, value); }
    GgufWriter& i32(std::string_view key, int32_t value) { return scalar(key, 5, value); }
    GgufWriter& u64(std::string_view key, uint64_t value) { return scalar(key, 10, value); }
    GgufWriter& i64(std::string_view key, int64_t value) { return scalar(key, 11, value); }
    GgufWriter& f32(std::string_view key, float value) { return scalar(key, 6, value); }
    GgufWriter& f64(std::string_view key, double value) { return scalar(key, 12, value); }
    GgufWriter& boolean(std::string_view key, bool value) {
        return scalar(key, 7, static_cast<uint8_t>(value));
    }
    GgufWriter& string(std::string_view key, std::string_view value) {
        begin(key, 8);
        put_string(meta_, value);
        return *this;
    }
    template <class Strings>
    GgufWriter& strings(std::string_view key, const Strings& values) {
        begin(key, 9);
        put(meta_, uint32_t{8});
        put(meta_, static_cast<uint64_t>(std::size(values)));
        for (const auto& value : values) put_string(meta_, value);
        return *this;
    }
    GgufWriter& strings(std::string_view key, std::initializer_list<std::string_view> values) {
        return strings<std::initializer_list<std::string_view>>(key, values);
    }
    GgufWriter& reals(std::string_view key, const std::vector<float>& values) {
        return numbers(key, 6, values);
    }
    GgufWriter& integers(std::string_view key, const std::vector<int32_t>& values) {
        return numbers(key, 5, values);
    }
    // A key with a value of any type number and any bytes.
    GgufWriter& raw(std::string_view key, uint32_t type, std::string_view bytes) {
        begin(key, type);
        meta_.append(bytes);
        return *this;
    }

    GgufWriter& tensor(std::string_view name, kernels::Type type, const std::vector<uint64_t>& dims,
                       std::span<const uint8_t> data) {
        data_.resize((data_.size() + alignment - 1) / alignment * alignment);
        raw_tensor(name, static_cast<uint32_t>(type), dims, data_.size());
        data_.append(reinterpret_cast<const char*>(data.data()), data.size());
        return *this;
    }
    GgufWriter& tensor_f32(std::string_view name, const std::vector<uint64_t>& dims,
                           const std::vector<float>& values) {
        return tensor(
            name, kernels::Type::f32, dims,
            {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)});
    }
    // Only the tensor's description, with any offset; `data()` adds bytes by hand.
    GgufWriter& raw_tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& dims,
                           uint64_t offset) {
        put_string(infos_, name);
        put(infos_, static_cast<uint32_t>(dims.size()));
        for (const uint64_t dim : dims) put(infos_, dim);
        put(infos_, type);
        put(infos_, offset);
        ++tensors_;
        return *this;
    }
    GgufWriter& data(std::string_view bytes) {
        data_.append(bytes);
        return *this;
    }

    std::vector<uint8_t> build() const {
        std::string out = "GGUF";
        put(out, version);
        put(out, tensors_);
        put(out, keys_);
        out += meta_;
        out += infos_;
        if (!data_.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment);
        out += data_;
        return {out.begin(), out.end()};
    }
    void write(const std::string& path) const {
        const auto bytes = build();
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }

    template <class T>
    static void put(std::string& out, T value) {
        char bytes[sizeof value];
        std::memcpy(bytes, &value, sizeof value);
        out.append(bytes, sizeof value);
    }
    static void put_string(std::string& out, std::string_view value) {
        put(out, static_cast<uint64_t>(value.size()));
        out.append(value);
    }

  private:
    void begin(std::string_view key, uint32_t type) {
        put_string(meta_, key);
        put(meta_, type);
        ++keys_;
    }
    template <class T>
    GgufWriter& scalar(std::string_view key, uint32_t type, T value) {
        begin(key, type);
        put(meta_, value);
        return *this;
    }
    template <class T>
    GgufWriter& numbers(std::string_view key, uint32_t type, const std::vector<T>& values) {
        begin(key, 9);
        put(meta_, type);
        put(meta_, static_cast<uint64_t>(values.size()));
        for (const T value : values) put(meta_, value);
        return *this;
    }

    uint64_t keys_ = 0;
    uint64_t tensors_ = 0;
    std::string meta_;
    std::string infos_;
    std::string data_;
};

}  // namespace parley::test
