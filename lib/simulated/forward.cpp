#include "simulated/forward.hpp"

#include <time.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <limits>

#include "simulated/vocabulary.hpp"

namespace parley::simulated {
namespace {

using model::Token;

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kCandidates = 4;    // words that the sampler's seed decides between
constexpr uint64_t kStopEvery = 11;  // words and one full stop, about
constexpr uint64_t kSeed = 0x9E3779B97F4A7C15ull;

uint64_t mix(uint64_t x) {  // SplitMix64's finisher: Steele, Lea, Flood 2014
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

double share(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }  // [0, 1)

}  // namespace

void sleep_until(int64_t until_ns) {
    const timespec until{until_ns / 1'000'000'000, until_ns % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
}

base::Result<std::unique_ptr<Forward>> Forward::create(const ForwardOptions& options,
                                                       const model::Tokenizer& tokenizer,
                                                       const base::Clock& clock, Pause pause) {
    const Cost& cost = options.cost;
    for (const double value : {cost.step_us, cost.row_us, cost.context_us, cost.prefill_us})
        if (!std::isfinite(value) || value < 0)
            return base::fail(base::Errc::invalid, "a simulated cost is not a number from 0 on");
    if (!std::isfinite(cost.speed) || cost.speed <= 0)
        return base::fail(base::Errc::invalid, "the simulated speed is not a number above 0");
    std::unique_ptr<Forward> out(new Forward(options, tokenizer, clock, std::move(pause)));
    auto memory =
        engine::HugeMemory::map(uint64_t{options.kv_blocks} * engine::kBlockTokens * sizeof(State));
    if (!memory) return base::fail("simulated KV", memory.error());
    out->kv_ = std::move(*memory);
    return out;
}

Forward::Forward(const ForwardOptions& options, const model::Tokenizer& tokenizer,
                 const base::Clock& clock, Pause pause)
    : options_(options), clock_(clock), pause_(std::move(pause)), vocab_(tokenizer.vocab_size()) {
    turn_start_ = tokenizer.special("<|im_start|>").value_or(0);
    turn_end_ = tokenizer.special("<|im_end|>").value_or(0);
    header_tokens_ = tokenizer.encode("assistant\n").size();
    opening_ = tokenizer.encode(opening());
    stop_ = tokenizer.encode(".").front();
    for (const std::string& word : answer_words()) words_.push_back(tokenizer.encode(word).front());
}

void Forward::copy_block(uint32_t from, uint32_t to) {
    State* const states = reinterpret_cast<State*>(kv_.data());
    if (from != to)
        std::copy_n(states + size_t{from} * engine::kBlockTokens, engine::kBlockTokens,
                    states + size_t{to} * engine::kBlockTokens);
}

Forward::State& Forward::at(const engine::Chunk& chunk, size_t position) const {
    const size_t block = position / engine::kBlockTokens;
    assert(block < chunk.blocks.size() && chunk.blocks[block] < options_.kv_blocks);
    return reinterpret_cast<State*>(
        kv_.data())[static_cast<size_t>(chunk.blocks[block]) * engine::kBlockTokens +
                    position % engine::kBlockTokens];
}

// Logits that leave no other choice than the one that is meant; but for words, where the sampler
// has a few to draw from, and penalties find others.
void Forward::choose(const State& state, Token last, std::span<float> row) const {
    std::fill(row.begin(), row.end(), kNever);
    const auto set = [&](Token token, float logit) { row[static_cast<size_t>(token)] = logit; };
    const uint64_t place = state.turn_tokens - header_tokens_;  // in the answer; a prefill counts
    if (state.turn_tokens >= header_tokens_ && place < opening_.size())
        return set(opening_[place], 0);
    const uint32_t mean = options_.answer_tokens_mean;
    const double rest =
        std::max(1.0, static_cast<double>(mean) - static_cast<double>(opening_.size()));
    if (mean > 0 && share(mix(state.hash + 1)) * rest < 1) return set(turn_end_, 0);
    const uint64_t hash = mix(state.hash + 2);
    if (last != stop_ && hash % kStopEvery == 0) return set(stop_, 0);
    for (const Token word : words_) set(word, -20);
    for (size_t i = 0; i < kCandidates; ++i)
        set(words_[mix(hash + i) % words_.size()], -0.25f * static_cast<float>(i));
}

void Forward::run(std::span<const engine::Chunk> chunks, std::span<float> logits) {
    const int64_t started_ns = clock_.mono_ns();
    uint64_t decode_rows = 0, context_tokens = 0, prefill_rows = 0;
    size_t row = 0;
    for (const engine::Chunk& chunk : chunks) {
        // Guessed tokens behind a decoding one want all logits; a prompt wants its last ones.
        if (chunk.logit_rows == chunk.tokens.size() || chunk.tokens.size() == 1) {
            ++decode_rows;
            context_tokens += chunk.position;
            prefill_rows += chunk.tokens.size() - 1;
        } else {
            prefill_rows += chunk.tokens.size();
        }
        State state = chunk.position == 0 ? State{kSeed, 0} : at(chunk, chunk.position - 1);
        for (size_t i = 0; i < chunk.tokens.size(); ++i) {
            const Token token = chunk.tokens[i];
            state.hash = mix(state.hash + kSeed * (static_cast<uint64_t>(token) + 1));
            state.turn_tokens = token == turn_start_ ? 0 : state.turn_tokens + 1;
            at(chunk, chunk.position + i) = state;
            if (i + chunk.logit_rows >= chunk.tokens.size())
                choose(state, token, logits.subspan(vocab_ * row++, vocab_));
        }
    }
    assert(row * vocab_ == logits.size());

    const int64_t until_ns = started_ns +
                             options_.cost.iteration_ns(decode_rows, context_tokens, prefill_rows) -
                             carry_ns_;
    pause_(until_ns);
    carry_ns_ = std::clamp<int64_t>(clock_.mono_ns() - until_ns, 0, kCarryNs);
}

}  // namespace parley::simulated
