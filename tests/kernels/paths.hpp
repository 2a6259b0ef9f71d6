// What the kernel tests share: the fast paths this host can run, and random inputs with their seed.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.hpp"
#include "kernels/reference/reference.hpp"

namespace parley::kernels {

// Every path but the reference, each forced by its name; those the processor lacks say so.
inline std::vector<const Kernels*> fast_paths() {
    std::vector<const Kernels*> paths;
    for (const std::string_view name : names()) {
        if (name == "reference") continue;
        const Kernels* table = find(name);
        if (table == nullptr) {
            std::printf("SKIPPED: %s is not for this processor\n", std::string{name}.c_str());
            continue;
        }
        REQUIRE(std::string_view{table->name} == name);
        paths.push_back(table);
    }
    return paths;
}

class Random {
  public:
    explicit Random(uint32_t seed) : engine_(seed) {}
    uint32_t below(uint32_t n) {
        return std::uniform_int_distribution<uint32_t>{0, n - 1}(engine_);
    }
    float real(float scale = 1.0f) { return std::normal_distribution<float>{0.0f, scale}(engine_); }
    std::vector<float> reals(size_t n, float scale = 1.0f) {
        std::vector<float> values(n);
        for (float& value : values) value = real(scale);
        return values;
    }
    uint8_t byte() { return static_cast<uint8_t>(below(256)); }

  private:
    std::mt19937 engine_;
};

// Index of the first difference in bits; -1 when there is none.
inline ptrdiff_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return 0;
    for (size_t i = 0; i < a.size(); ++i) {
        if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return static_cast<ptrdiff_t>(i);
    }
    return -1;
}

// Memory at 64 bytes, as packed weights ask.
class Aligned {
  public:
    explicit Aligned(size_t bytes) : bytes_(bytes + 64 + 8192) {}
    uint8_t* data() {
        const auto at = reinterpret_cast<uintptr_t>(bytes_.data());
        return bytes_.data() + (64 - at % 64) % 64;
    }

  private:
    std::vector<uint8_t> bytes_;
};

}  // namespace parley::kernels
