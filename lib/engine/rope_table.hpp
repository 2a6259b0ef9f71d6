// RopeTable: how far each pair of a head turns from one position to the next, with a file's scaling.
//
// Kinds    none; linear (angles divided by the factor); yarn (pairs that turn often within the original
//          context keep their angle, those that turn seldom are divided, a ramp lies between, and cos and sin
//          grow by 0.1·ln(factor) + 1, all as the paper and llama.cpp have it). Beside any of them, divisors
//          of the single frequencies as the tensor rope_freqs.weight has them (Llama 3.1 and later).
// Numbers  doubles; cos and sin are rounded once, by who uses them (kernels/contract.hpp).
// Errors   read_rope_scaling(): Errc::unsupported (another kind, or a key whose value we do not compute:
//          named), Errc::corrupt (a number that cannot be: named).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/gguf.hpp"

namespace parley::engine {

struct RopeScaling {
    bool yarn = false;
    double factor = 1;
    // YaRN only.
    double original_context = 0;  // tokens
    double beta_fast = 32;        // turns within it from which a pair keeps its angle
    double beta_slow = 1;         // and up to which it is divided
    double magnitude = 1;         // more on cos and sin
};

// Keys of `architecture`; `context` is what the original context is where the file does not say.
base::Result<RopeScaling> read_rope_scaling(const model::Gguf& file, const std::string& architecture,
                                            uint32_t context);

struct RopeTable {
    std::vector<double> frequencies;  // [dims / 2], radians a position
    double magnitude = 1;             // of cos and sin

    // `divisors`: empty, or [dims / 2].
    static RopeTable make(double base, uint32_t dims, const RopeScaling& scaling,
                          std::span<const float> divisors);
    // cos, sin, cos, sin …: [2 · frequencies.size()].
    void write(uint32_t position, float* cos_sin) const;
};

}  // namespace parley::engine
