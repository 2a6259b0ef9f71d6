// Whether a path may be taken on this processor, found out by trying it.
//
// try_out() computes full tiles of every quantised type by both tables, in a child process, so that an
// instruction which processor or system refuse ends the child and nothing else. It takes some milliseconds;
// a child that takes two seconds is ended.
//
// Threads  call it before others are started: the child has only the caller's.
// Errors   none: a system that gives no child has not proved anything.
#pragma once

#include "kernels/kernels.hpp"

namespace parley::kernels {

enum class Proof {
    faster,     // the same bits, in less time
    slower,     // the same bits
    different,  // not the bits of `known`
    refused,    // it did not get to its end
};

Proof try_out(const Kernels& candidate, const Kernels& known);

}  // namespace parley::kernels
