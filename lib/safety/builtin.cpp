// The shipped weights and the shipped policy, inside the binary: there is no path that could be wrong.
#include <cstddef>

#include "safety/model.hpp"
#include "safety/policy.hpp"

// clang-format off
#define PARLEY_EMBED(symbol, path)                                     \
    asm(".pushsection .rodata\n.balign 16\n.global " #symbol "_begin\n" #symbol "_begin:\n" \
        ".incbin \"" path "\"\n.global " #symbol "_end\n" #symbol "_end:\n.byte 0\n.popsection\n")
// clang-format on

PARLEY_EMBED(parley_safety_weights, PARLEY_SAFETY_WEIGHTS);
PARLEY_EMBED(parley_safety_policy, PARLEY_SAFETY_POLICY);

extern "C" const char parley_safety_weights_begin[], parley_safety_weights_end[];
extern "C" const char parley_safety_policy_begin[], parley_safety_policy_end[];

namespace parley::safety {

std::string_view Model::builtin_bytes() {
    return {parley_safety_weights_begin,
            static_cast<size_t>(parley_safety_weights_end - parley_safety_weights_begin)};
}

std::string_view builtin_policy_text() {
    return {parley_safety_policy_begin,
            static_cast<size_t>(parley_safety_policy_end - parley_safety_policy_begin)};
}

}  // namespace parley::safety
