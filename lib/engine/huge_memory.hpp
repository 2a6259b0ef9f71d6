// HugeMemory: zeroed anonymous memory for what is large and read in long runs, on huge pages where
// the system gives them (a page walk per 4 KiB costs a streaming kernel a tenth of its speed).
//
// Owns     the mapping. Pages are taken from the system when first touched, not before.
// Errors   Errc::again when the system refuses, or for more than the machine's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/result.hpp"

namespace parley::engine {

class HugeMemory {
  public:
    static base::Result<HugeMemory> map(uint64_t bytes);  // bytes ≥ 1; aligned to 2 MiB
    HugeMemory() = default;
    HugeMemory(HugeMemory&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    HugeMemory& operator=(HugeMemory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~HugeMemory();

    uint8_t* data() const { return data_; }
    uint64_t bytes() const { return bytes_; }

  private:
    uint8_t* data_ = nullptr;
    uint64_t bytes_ = 0;
};

}  // namespace parley::engine
