#include "engine/random.hpp"

namespace parley::engine {

PhiloxBlock philox4x32_10(PhiloxBlock c, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = 0xD2511F53ull * c[0];
        const uint64_t p1 = 0xCD9E8D57ull * c[2];
        c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(p1),
             static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(p0)};
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    return c;
}

double uniform(uint64_t seed, uint64_t index) {
    const PhiloxBlock block =
        philox4x32_10({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0},
                      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    const uint64_t bits = (static_cast<uint64_t>(block[1]) << 32 | block[0]) >> 11;
    return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace parley::engine
