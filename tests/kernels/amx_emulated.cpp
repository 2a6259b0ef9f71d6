// kernels/cpu/amx.cpp once more, over emulated tiles: use_emulated_amx() in place of use_amx().
#include "kernels/amx_emulation.hpp"

#define PARLEY_AMX_USE use_emulated_amx
// In quotes by its whole path: the very file of the AMX path.
#include "kernels/cpu/amx.cpp"

namespace parley::kernels::amx_emulation {

std::atomic<uint64_t> products{0};
std::atomic<uint64_t> configurations{0};

}  // namespace parley::kernels::amx_emulation
