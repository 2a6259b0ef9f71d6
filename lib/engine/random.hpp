// Random numbers by counting: the number of (seed, index) is a pure function, so that a seeded run
// does not depend on who else is in the batch, nor on preemption, nor on which worker goes on.
//
// Source   Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2,
// 3",
//          SC'11; constants and rounds from there.
// Threads  pure functions.
#pragma once

#include <array>
#include <cstdint>

namespace parley::engine {

using PhiloxBlock = std::array<uint32_t, 4>;

PhiloxBlock philox4x32_10(PhiloxBlock counter, std::array<uint32_t, 2> key);

// In [0, 1), 53 bits.
double uniform(uint64_t seed, uint64_t index);

}  // namespace parley::engine
