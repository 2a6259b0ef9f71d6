// The x86 paths. Their objects are compiled for their instruction set: nothing in them may run
// before dispatch has asked the processor, and none may define an inline function another object
// shares (the linker would keep one copy, perhaps the one that needs AVX-512).
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels::cpu {

// Tables of constant data: safe to name on any host.
extern const Kernels kAvx2;
extern const Kernels kAvx512Vnni;

}  // namespace parley::kernels::cpu
