// A software emulation of the AMX tile instructions that kernels/cpu/amx.cpp uses, under the names of their
// intrinsics. It is NOT AMX: it shows that the source asks for the right products, in the shapes the
// instructions allow; it says nothing of speed, of the compiler's AMX code or of a processor.
//
// Strict   what would be a fault of the processor (no configuration in this thread, a tile outside of it,
//          shapes that do not fit each other) ends the program with a message.
// Counts   products, over all threads, so that a test can tell that they came to be used.
// Threads  tiles and configuration are a thread's own, as in hardware.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace parley::kernels::amx_emulation {

extern std::atomic<uint64_t> products;  // tile products so far
extern std::atomic<uint64_t> configurations;

namespace {

struct Tile {
    uint32_t rows = 0, row_bytes = 0;
    uint8_t data[16][64] = {};
};
struct State {
    bool configured = false;
    Tile tiles[8];
};
inline State& state() {
    static thread_local State state;
    return state;
}

inline void fault(const char* what) {
    std::fprintf(stderr, "emulated AMX: %s\n", what);
    std::abort();
}

inline Tile& tile(int index) {
    if (!state().configured) fault("a tile instruction in a thread without configuration");
    Tile& found = state().tiles[index];
    if (found.rows == 0 || found.row_bytes == 0) fault("a tile that is not configured");
    return found;
}

inline void loadconfig(const void* at) {
    uint8_t bytes[64];
    std::memcpy(bytes, at, sizeof bytes);
    if (bytes[0] != 1) fault("the palette is not 1");
    for (int i = 2; i < 16; ++i) {
        if (bytes[i] != 0) fault("a reserved byte of the configuration is set");
    }
    state() = {};
    for (uint32_t i = 0; i < 16; ++i) {
        uint16_t row_bytes;
        std::memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof row_bytes);
        const uint8_t rows = bytes[48 + i];
        if (row_bytes > 64 || rows > 16) fault("a tile larger than 16 rows of 64 bytes");
        if (i < 8) {
            state().tiles[i].rows = rows;
            state().tiles[i].row_bytes = row_bytes;
        } else if (rows != 0 || row_bytes != 0) {
            fault("a ninth tile");
        }
    }
    state().configured = true;
    ++configurations;
}

inline void zero(int index) { std::memset(tile(index).data, 0, sizeof(Tile::data)); }
inline void load(int index, const void* base, int64_t stride) {
    Tile& to = tile(index);
    std::memset(to.data, 0, sizeof to.data);
    for (uint32_t r = 0; r < to.rows; ++r) {
        std::memcpy(to.data[r], static_cast<const uint8_t*>(base) + r * stride, to.row_bytes);
    }
}
inline void store(int index, void* base, int64_t stride) {
    const Tile& from = tile(index);
    for (uint32_t r = 0; r < from.rows; ++r) {
        std::memcpy(static_cast<uint8_t*>(base) + r * stride, from.data[r], from.row_bytes);
    }
}
// c[m][n] += Σ over k, i of signed a[m][4k + i] · unsigned b[k][4n + i].
inline void dpbsud(int index_c, int index_a, int index_b) {
    Tile& c = tile(index_c);
    const Tile &a = tile(index_a), &b = tile(index_b);
    if (c.rows != a.rows || c.row_bytes != b.row_bytes || a.row_bytes != 4 * b.rows) {
        fault("a product of tiles whose shapes do not fit");
    }
    for (uint32_t m = 0; m < c.rows; ++m) {
        for (uint32_t n = 0; n < c.row_bytes / 4; ++n) {
            int32_t sum;
            std::memcpy(&sum, &c.data[m][4 * n], sizeof sum);
            for (uint32_t k = 0; k < b.rows; ++k) {
                for (uint32_t i = 0; i < 4; ++i) {
                    sum += static_cast<int8_t>(a.data[m][4 * k + i]) * b.data[k][4 * n + i];
                }
            }
            std::memcpy(&c.data[m][4 * n], &sum, sizeof sum);
        }
    }
    ++products;
}

}  // namespace
}  // namespace parley::kernels::amx_emulation

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbsud
#define _tile_loadconfig(at) ::parley::kernels::amx_emulation::loadconfig(at)
#define _tile_zero(t) ::parley::kernels::amx_emulation::zero(t)
#define _tile_loadd(t, base, stride) ::parley::kernels::amx_emulation::load(t, base, stride)
#define _tile_stored(t, base, stride) ::parley::kernels::amx_emulation::store(t, base, stride)
#define _tile_dpbsud(c, a, b) ::parley::kernels::amx_emulation::dpbsud(c, a, b)
