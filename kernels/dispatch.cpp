#include "kernels/reference/reference.hpp"
#if defined(PARLEY_KERNELS_X86)
#include "kernels/cpu/cpu.hpp"
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
constexpr std::string_view kNames[] = {"avx512vnni", "avx2", "reference"};
#else
constexpr std::string_view kNames[] = {"reference"};
#endif

}  // namespace

std::span<const std::string_view> names() { return kNames; }

const Kernels* find(std::string_view name) {
    if (name == "reference") return &reference::table();
#if defined(PARLEY_KERNELS_X86)
    if (name == "avx2" && has_avx2()) return &cpu::kAvx2;
    if (name == "avx512vnni" && has_avx512vnni()) return &cpu::kAvx512Vnni;
#endif
    return nullptr;
}

const Kernels& best() {
    for (const std::string_view name : kNames) {
        if (const Kernels* table = find(name)) return *table;
    }
    return reference::table();
}

}  // namespace parley::kernels
