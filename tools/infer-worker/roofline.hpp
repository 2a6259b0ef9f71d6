// Roofline: what this machine's memory and integer units give at most, measured, so that a model's speed
// can be said as a share of it.
//
// Read     bytes a second when `threads` threads read `bytes` bytes again and again, in the pool that the
//          engine uses; the best of several passes. What fits a cache is read from the cache: measure with
//          as many bytes as an iteration reads.
// int8     multiplications and additions a second (two operations a product) of the dot-product
//          instruction of a kernel path, on registers alone, all threads at once. "avx512vnni" and "amx"
//          paths are measured by vpdpbusd (tiles do more: the figure is no bound for "amx"), "avx2" by
//          vpmaddubsw + vpmaddwd + vpaddd. 0 for "reference", which has no such instruction.
// Threads  one caller; each function starts and ends its own threads.
// Errors   Errc::again when memory or a thread is refused.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.hpp"

namespace parley::infer_worker {

base::Result<double> read_bytes_per_s(uint64_t bytes, uint32_t threads);
base::Result<double> int8_ops_per_s(std::string_view kernel, uint32_t threads);

}  // namespace parley::infer_worker
