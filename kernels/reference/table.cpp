#include "kernels/reference/reference.hpp"

namespace parley::kernels::reference {

const Kernels& table() {
    static const Kernels kTable{
        .name = "reference",
        .types = types(),
        .quantise = quantise,
        .quantise_rows = quantise_rows,
        .rms_norm = rms_norm,
        .rope_adjacent = rope_adjacent,
        .silu_mul = silu_mul,
        .gelu_mul = gelu_mul,
        .kv_append = kv_append,
        .attention_split = attention_split,
        .attention_fold = attention_fold,
        .attention_finish = attention_finish,
    };
    return kTable;
}

}  // namespace parley::kernels::reference
