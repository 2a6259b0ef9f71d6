// The x86 paths. Their objects are compiled for their instruction set: nothing in them may run before
// dispatch has asked the processor, and none may define an inline function another object shares
// (the linker would keep one copy, perhaps the one that needs AVX-512). So those objects keep all to
// themselves in unnamed namespaces, use no templates of the standard library, and have no
// initialisers that run at start.
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {

// The functions of a path, without names and packing, which dispatch.cpp adds.
struct Operations {
    void (*matmul_q4_1)(const MatmulArgs&);
    void (*matmul_q4_0)(const MatmulArgs&);
    void (*matmul_q8_0)(const MatmulArgs&);
    void (*matmul_q5_0)(const MatmulArgs&);
    void (*matmul_q5_1)(const MatmulArgs&);
    void (*matmul_q4_k)(const MatmulArgs&);
    void (*matmul_q5_k)(const MatmulArgs&);
    void (*matmul_q6_k)(const MatmulArgs&);
    void (*matmul_f32)(const MatmulArgs&);
    void (*matmul_f16)(const MatmulArgs&);
    void (*matmul_bf16)(const MatmulArgs&);
    decltype(Kernels::quantise) quantise;
    decltype(Kernels::quantise_rows) quantise_rows;
    decltype(Kernels::rms_norm) rms_norm;
    decltype(Kernels::rope_adjacent) rope_adjacent;
    decltype(Kernels::silu_mul) silu_mul;
    decltype(Kernels::gelu_mul) gelu_mul;
    decltype(Kernels::kv_append) kv_append;
    decltype(Kernels::attention_split) attention_split;
    decltype(Kernels::attention_fold) attention_fold;
    decltype(Kernels::attention_finish) attention_finish;
};

extern const Operations kAvx2;
extern const Operations kAvx512Vnni;
// Puts the AMX products in place of kAvx512Vnni's. For a process that may use tiles (dispatch.cpp).
void use_amx(Operations& operations);

}  // namespace parley::kernels::cpu
