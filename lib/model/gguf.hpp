// Gguf: a GGUF file (versions 2 and 3, little-endian), mapped and checked.
//
// Source   https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
// Owns     the mapping; every view handed out (strings, tensor data) lives as long as the Gguf.
// Errors   Errc::not_found / io when it cannot be read; Errc::corrupt for a truncated or hostile
//          file: every length, count, offset and product is checked against the file's size before
//          it is used, so no input makes it read outside the mapping, loop for long or allocate
//          more than a small multiple of the file. Errc::unsupported for a tensor type not listed.
// Bounds   kMetaMax keys, kTensorsMax tensors, kArrayDepthMax nested arrays.
// Threads  immutable after open; may be read from any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.hpp"
#include "kernels/types.hpp"

namespace parley::model {

struct Tensor {
    std::string name;
    kernels::Type type{};
    // dims[0] is the contiguous one (columns, "in"); a weight matrix is [in, out].
    uint32_t rank = 0;
    std::array<uint64_t, 4> dims{1, 1, 1, 1};
    std::span<const uint8_t> data;  // exactly row_bytes · dims[1] · dims[2] · dims[3] bytes
};

class Gguf {
  public:
    static constexpr uint64_t kMetaMax = 65'536;
    static constexpr uint64_t kTensorsMax = 65'536;
    static constexpr int kArrayDepthMax = 4;

    static base::Result<Gguf> open(const std::string& path);
    // For tests and fuzzing: parses a copy held in memory.
    static base::Result<Gguf> parse(std::vector<uint8_t> bytes);
    Gguf(Gguf&&) noexcept;
    Gguf& operator=(Gguf&&) noexcept;
    ~Gguf();

    // Metadata by exact key; nullopt when absent or of another kind. Integers of every width widen.
    std::optional<uint64_t> uint(std::string_view key) const;
    std::optional<int64_t> integer(std::string_view key) const;
    std::optional<double> real(std::string_view key) const;  // float32, float64, and integers
    std::optional<bool> boolean(std::string_view key) const;
    std::optional<std::string_view> string(std::string_view key) const;
    std::optional<std::vector<std::string_view>> strings(std::string_view key) const;
    std::optional<std::vector<float>> reals(std::string_view key) const;
    std::optional<std::vector<int64_t>> integers(std::string_view key) const;
    std::vector<std::string> keys() const;  // in file order
    // For people to look at: short, printable, arrays abridged.
    std::string show(std::string_view key) const;

    const std::vector<Tensor>& tensors() const;
    const Tensor* tensor(std::string_view name) const;  // nullptr when absent
    uint64_t file_bytes() const;
    // SHA-256 of the file, 64 hex digits; computed at the first call.
    std::string_view content_hash() const;
    // Tells the kernel that the file's pages are no longer needed (weights have been repacked).
    void drop_pages() const;

  private:
    struct Impl;
    explicit Gguf(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::model
