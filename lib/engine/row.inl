// The passes of engine/row.hpp for one instruction set: included once for each, with PARLEY_ROW_PATH
// (a namespace) and PARLEY_ROW_BYTES (of its vectors). Sixteen lanes in all of them, so that all add in
// the same order.
namespace PARLEY_ROW_PATH {

typedef float Floats __attribute__((vector_size(PARLEY_ROW_BYTES)));
typedef int32_t Ints __attribute__((vector_size(PARLEY_ROW_BYTES)));
constexpr size_t kWidth = PARLEY_ROW_BYTES / sizeof(float);
constexpr size_t kVectors = kLanes / kWidth;

inline void fold_max(const Floats* vectors, float* out) {
    float lanes[kLanes];
    __builtin_memcpy(lanes, vectors, sizeof lanes);
    for (size_t half = kLanes / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l)
            lanes[l] = lanes[l + half] > lanes[l] ? lanes[l + half] : lanes[l];
    *out = lanes[0];
}

inline void fold_sum(const Floats* vectors, float* out) {
    float lanes[kLanes];
    __builtin_memcpy(lanes, vectors, sizeof lanes);
    for (size_t half = kLanes / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    *out = lanes[0];
}

void max_blocks(const float* row, size_t blocks, float* block_max) {
    for (size_t b = 0; b < blocks; ++b) {
        Floats most[kVectors];
        for (size_t v = 0; v < kVectors; ++v) most[v] = Floats{} + kLowest;
        for (size_t i = 0; i < kRowBlock; i += kLanes)
            for (size_t v = 0; v < kVectors; ++v) {
                Floats x;
                __builtin_memcpy(&x, row + b * kRowBlock + i + v * kWidth, sizeof x);
                most[v] = x > most[v] ? x : most[v];  // never true for NaN
            }
        fold_max(most, block_max + b);
    }
}

void weigh_blocks(const float* row, size_t blocks, float most, float scale, float* weights,
                  float* block_sum, float* block_max) {
    for (size_t b = 0; b < blocks; ++b) {
        Floats sum[kVectors] = {};
        Floats greatest[kVectors] = {};
        for (size_t i = 0; i < kRowBlock; i += kLanes)
            for (size_t v = 0; v < kVectors; ++v) {
                const size_t at = b * kRowBlock + i + v * kWidth;
                Floats x;
                __builtin_memcpy(&x, row + at, sizeof x);
                x = (x - most) * scale;
                const Floats safe = x > kExpLeast ? x : Floats{} + kExpLeast;
                // Cephes expf (S. Moshier, public domain): e^x = 2^n · e^r, |r| ≤ ln2/2, ln2 in two
                // parts. x ≤ 0, so that cutting off after -0.5 rounds to nearest.
                const Ints n = __builtin_convertvector(safe * 1.44269504088896341f - 0.5f, Ints);
                const Floats fn = __builtin_convertvector(n, Floats);
                Floats r = safe - fn * 0.693359375f;
                r = r - fn * -2.12194440e-4f;
                Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
                p = p * r + 8.3334519073e-3f;
                p = p * r + 4.1665795894e-2f;
                p = p * r + 1.6666665459e-1f;
                p = p * r + 5.0000001201e-1f;
                p = p * (r * r) + r + 1.0f;
                const Floats e = p * (Floats)((n + 127) << 23);
                const Floats weight = x > kExpLeast ? e : Floats{};
                __builtin_memcpy(weights + at, &weight, sizeof weight);
                sum[v] += weight;
                greatest[v] = weight > greatest[v] ? weight : greatest[v];
            }
        fold_sum(sum, block_sum + b);
        fold_max(greatest, block_max + b);
    }
}

}  // namespace PARLEY_ROW_PATH
