// Forward: the simulated model behind engine::Forward: text out of a hash, time out of a cost model.
// Scheduler, sampler, KV blocks, service and protocol around it are the real ones.
//
// Text     the opening ("Simulated answer:"), then Latin words, until a token ends the answer: at
//          each place with the same chance, so that lengths are geometric with the wanted mean;
//          max_tokens cuts as it does for a model. Which words and where the end is follow from all
//          tokens before, by way of the KV: the same prompt, seed and sampling give the same answer
//          in any batch, after a preemption, and continued by another worker of the same hash.
// Time     run() returns when Cost says so, by `pause`, which sleeps: no core is burned. What engine
//          and sockets need themselves comes on top, as with a model. A sleep that was too long is
//          made up for by the next one (up to kCarryNs): the mean is right where the cores are free.
// KV       a running hash and a count for each position, 16 bytes, in the blocks that it is given.
// Threads  run() from one.
// Errors   create(): Errc::invalid for a cost that is negative or no number; Errc::again (memory).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/clock.hpp"
#include "engine/forward.hpp"
#include "engine/huge_memory.hpp"
#include "simulated/cost.hpp"

namespace parley::simulated {

// Returns when the clock is at `until_ns`; at once when it is past.
using Pause = std::function<void(int64_t until_ns)>;
void sleep_until(int64_t until_ns);  // of base::system_clock()

struct ForwardOptions {
    Cost cost;
    uint32_t answer_tokens_mean =
        128;  // with opening and end; below 4: as short as can be; 0: no end
    uint32_t context_tokens = 8192;
    uint32_t kv_blocks = 4096;
};

class Forward final : public engine::Forward {
  public:
    static constexpr int64_t kCarryNs = 1'000'000;

    static base::Result<std::unique_ptr<Forward>> create(
        const ForwardOptions& options, const model::Tokenizer& tokenizer,
        const base::Clock& clock = base::system_clock(), Pause pause = sleep_until);

    void run(std::span<const engine::Chunk> chunks, std::span<float> logits) override;

    void copy_block(uint32_t from, uint32_t to) override;

    uint32_t vocab_size() const override { return vocab_; }
    uint32_t context_tokens() const override { return options_.context_tokens; }
    uint32_t kv_blocks() const override { return options_.kv_blocks; }
    uint64_t kv_bytes() const override { return kv_.bytes(); }
    uint64_t weight_bytes() const override { return 0; }
    const char* kernel() const override { return "simulated"; }
    uint32_t threads() const override { return 1; }

  private:
    struct State {
        uint64_t hash;
        uint64_t turn_tokens;  // since the last <|im_start|>
    };
    Forward(const ForwardOptions& options, const model::Tokenizer& tokenizer,
            const base::Clock& clock, Pause pause);
    State& at(const engine::Chunk& chunk, size_t position) const;
    void choose(const State& state, model::Token last, std::span<float> row) const;

    ForwardOptions options_;
    const base::Clock& clock_;
    Pause pause_;
    engine::HugeMemory kv_;
    uint32_t vocab_ = 0;
    model::Token turn_start_ = 0, turn_end_ = 0, stop_ = 0;
    uint64_t header_tokens_ = 0;         // of "assistant\n"
    std::vector<model::Token> opening_;  // of every answer
    std::vector<model::Token> words_;
    int64_t carry_ns_ = 0;
};

}  // namespace parley::simulated
