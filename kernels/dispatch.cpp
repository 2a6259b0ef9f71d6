#include <array>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/proof.hpp"
#include "kernels/reference/reference.hpp"
#if defined(PARLEY_KERNELS_X86)
#include "kernels/cpu/cpu.hpp"
#include "kernels/cpu/pack.hpp"
#endif

namespace parley::kernels {
namespace {

#if defined(PARLEY_KERNELS_X86)
// __builtin_cpu_supports also asks whether the system saves the wide registers.
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}
bool has_avx512vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

// AMX-INT8 by cpuid, and the leave to use tiles, which Linux gives a process that asks once; its threads,
// those that run already too, have it from then on.
bool ask_for_amx() {
    constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;  // of leaf 7's edx
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!has_avx512vnni() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    if ((d & kTile) == 0 || (d & kInt8) == 0) return false;
    constexpr long kAskForFeature = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
    return syscall(SYS_arch_prctl, kAskForFeature, kTileData) == 0;
}
bool has_amx() {
    static const bool has = ask_for_amx();
    return has;
}
cpu::Operations amx_operations() {
    cpu::Operations operations = cpu::kAvx512Vnni;
    cpu::use_amx(operations);
    return operations;
}

// A path's table with the storage of its types.
struct CpuTable {
    std::array<TypeOps, 11> types;
    Kernels kernels;

    CpuTable(const char* name, const cpu::Operations& ops)
        : types{with(Type::q4_1, ops.matmul_q4_1), with(Type::q4_0, ops.matmul_q4_0),
                with(Type::q8_0, ops.matmul_q8_0), with(Type::q5_0, ops.matmul_q5_0),
                with(Type::q5_1, ops.matmul_q5_1), with(Type::q4_k, ops.matmul_q4_k),
                with(Type::q5_k, ops.matmul_q5_k), with(Type::q6_k, ops.matmul_q6_k),
                with(Type::f32, ops.matmul_f32),   with(Type::f16, ops.matmul_f16),
                with(Type::bf16, ops.matmul_bf16)},
          kernels{.name = name,
                  .types = types,
                  .quantise = ops.quantise,
                  .quantise_rows = ops.quantise_rows,
                  .rms_norm = ops.rms_norm,
                  .rope_adjacent = ops.rope_adjacent,
                  .silu_mul = ops.silu_mul,
                  .gelu_mul = ops.gelu_mul,
                  .kv_append = ops.kv_append,
                  .attention_split = ops.attention_split,
                  .attention_fold = ops.attention_fold,
                  .attention_finish = ops.attention_finish} {}
    CpuTable(const CpuTable&) = delete;
    CpuTable& operator=(const CpuTable&) = delete;

    static TypeOps with(Type type, void (*matmul)(const MatmulArgs&)) {
        TypeOps ops = cpu::packing(type);
        ops.matmul = matmul;
        return ops;
    }
};

constexpr std::string_view kNames[] = {"amx", "avx512vnni", "avx2", "reference"};
#else
constexpr std::string_view kNames[] = {"reference"};
#endif

}  // namespace

std::span<const std::string_view> names() { return kNames; }

const Kernels* find(std::string_view name) {
    if (name == "reference") return &reference::table();
#if defined(PARLEY_KERNELS_X86)
    if (name == "avx2" && has_avx2()) {
        static const CpuTable kTable{"avx2", cpu::kAvx2};
        return &kTable.kernels;
    }
    if (name == "amx" && has_amx()) {
        static const CpuTable kTable{"amx", amx_operations()};
        return &kTable.kernels;
    }
    if (name == "avx512vnni" && has_avx512vnni()) {
        static const CpuTable kTable{"avx512vnni", cpu::kAvx512Vnni};
        return &kTable.kernels;
    }
#endif
    return nullptr;
}

const Kernels& best() {
#if defined(PARLEY_KERNELS_X86)
    // Our own tests had emulated tiles only: the processor at hand has to show that its own give the same.
    if (const Kernels* amx = find("amx")) {
        static const Proof proof = try_out(*amx, *find("avx512vnni"));
        if (proof == Proof::faster) return *amx;
    }
#endif
    for (const std::string_view name : kNames) {
        if (name == "amx") continue;
        if (const Kernels* table = find(name)) return *table;
    }
    return reference::table();
}

}  // namespace parley::kernels
