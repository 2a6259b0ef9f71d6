// Forward: one pass of a transformer over the rows of one iteration.
//
// An iteration is a list of chunks. A chunk is a run of consecutive tokens of one sequence: one token
// for a sequence that decodes, many for one that prefills. All chunks share the weights' one reading.
//
// Numbers  by the numeric contract (kernels/contract.hpp): a row's result does not depend on what else
//          is in the iteration, nor on how its sequence was cut into chunks, nor on the kernel path.
// KV       lives here, in blocks of kBlockTokens positions of every layer; who owns which block is
//          the caller's business (engine/block_pool.hpp). Block ids are 0 … kv_blocks-1.
// Owns     the repacked weights, the KV storage, the scratch memory and the threads.
// Threads  run() from one thread; it fans out to `threads` (the caller is one of them).
// Errors   create(): Errc::unsupported (architecture, tensor type: named), Errc::corrupt (shape or
//          missing tensor: named), Errc::again (memory). run() cannot fail: its arguments are checked
//          by assertion.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "model/gguf.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

inline constexpr uint32_t kBlockTokens = 16;

struct ForwardOptions {
    uint32_t threads = 0;          // 0: as many as there are cores
    uint32_t kv_blocks = 4096;     // blocks of kBlockTokens positions
    std::string kv_type = "f16";   // or int8: half the memory and its traffic, less exact
    uint32_t context_tokens = 0;   // 0: the file's own
    uint32_t rows_max = 512;       // most rows in one run(); scratch memory follows it
    std::string kernel;            // "" = best for this host; reference, avx2, avx512vnni, amx
};

struct Chunk {
    std::span<const model::Token> tokens;  // ≥ 1
    uint32_t position = 0;                 // of tokens[0]; positions before it are in the KV already
    std::span<const uint32_t> blocks;      // the sequence's block table: covers position+tokens.size()
    uint32_t logit_rows = 0;               // logits of the last this many tokens; ≤ tokens.size()
};

class Forward {
  public:
    // Repacks the weights of `file`; the file may be closed (drop_pages) afterwards.
    static base::Result<std::unique_ptr<Forward>> create(const model::Gguf& file,
                                                         const ForwardOptions& options);
    virtual ~Forward() = default;

    // Writes vocab_size() floats to `logits` for each of the chunks' last logit_rows tokens, in
    // order of chunks and, within one, of positions; `logits` has room for exactly those. Σ tokens ≤ rows_max.
    virtual void run(std::span<const Chunk> chunks, std::span<float> logits) = 0;

    // All that block `to` holds is what `from` holds: between two calls of run(). The same: nothing.
    virtual void copy_block(uint32_t from, uint32_t to) = 0;

    virtual uint32_t vocab_size() const = 0;
    virtual uint32_t context_tokens() const = 0;
    virtual uint32_t kv_blocks() const = 0;
    virtual uint64_t kv_bytes() const = 0;
    // Bytes of keys and values that decoding a token at this depth reads: less than all where layers have a window.
    virtual uint64_t kv_read_bytes(uint32_t depth) const {
        return kv_bytes() / kv_blocks() / kBlockTokens * depth;
    }
    virtual uint64_t weight_bytes() const = 0;       // bytes read per decoded token, roughly
    virtual const char* kernel() const = 0;          // the path that runs: "avx512vnni"
    virtual uint32_t threads() const = 0;
};

}  // namespace parley::engine
