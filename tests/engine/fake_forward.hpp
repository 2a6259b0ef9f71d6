// FakeForward: a model whose logits are a pure function of the tokens before, read back through the
// block tables: a wrong block, a page given away too early or a token out of place changes the
// answer.
//
// Copies   with `copies` (of 8) the model says so often, by the same function, what followed the last
//          earlier place of its last two tokens: speculation then guesses right so often.
// Script   from position script_from on it says the script's tokens, whatever went before.
// Time     each run moves the manual clock on by run_ms, and each row by row_ms.
// Text     FakeVocabulary: 0 ends the answer, 1 … are short strings, among them halves of
// characters.
#pragma once

#include <cassert>
#include <map>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "engine/engine.hpp"
#include "engine/forward.hpp"

namespace parley::test {

class FakeForward final : public engine::Forward {
  public:
    uint32_t vocab = 24;
    uint32_t context = 512;
    uint32_t blocks = 64;
    float end_bias = -2.0f;  // of token 0: how soon answers end
    uint32_t rows_most = 0;
    uint32_t runs = 0;
    uint32_t blocks_copied = 0;
    std::vector<std::vector<uint32_t>> chunk_rows;  // of each run
    base::ManualClock* clock = nullptr;
    int64_t run_ms = 0;
    int64_t row_ms = 1;
    uint32_t copies = 0;
    bool broken = false;  // gives NaN
    std::vector<model::Token> script;
    size_t script_from = 0;  // of its first token: the tokens of the prompt

    void run(std::span<const engine::Chunk> chunks, std::span<float> logits) override {
        ++runs;
        kv_.resize(static_cast<size_t>(blocks) * engine::kBlockTokens, -1);
        size_t row = 0;
        uint32_t rows = 0;
        chunk_rows.emplace_back();
        for (const engine::Chunk& chunk : chunks) {
            for (size_t i = 0; i < chunk.tokens.size(); ++i)
                kv_.at(at(chunk, chunk.position + i)) = chunk.tokens[i];
            rows += static_cast<uint32_t>(chunk.tokens.size());
            chunk_rows.back().push_back(static_cast<uint32_t>(chunk.tokens.size()));
            if (chunk.logit_rows == 0) continue;
            const size_t end = chunk.position + chunk.tokens.size();
            uint64_t hash = 0x9E3779B97F4A7C15ull;
            for (size_t p = 0; p < end; ++p) {
                hash = mix(hash ^ static_cast<uint64_t>(kv_.at(at(chunk, p)) + 1));
                if (p + chunk.logit_rows < end) continue;
                const bool scripted = p + 1 >= script_from && p + 1 - script_from < script.size();
                const model::Token said = scripted ? script[p + 1 - script_from] : -1;
                const model::Token copied = mix(hash) % 8 < copies ? followed(chunk, p) : -1;
                for (uint32_t v = 0; v < vocab; ++v) {
                    const uint64_t h = mix(hash + v * 0xD1B54A32D192ED03ull);
                    float logit = static_cast<float>(h % 4096) / 512.0f;
                    if (v == 0) logit += end_bias;
                    if (static_cast<model::Token>(v) == copied) logit += 100;
                    if (static_cast<model::Token>(v) == said) logit += 10'000;
                    logits[row * vocab + v] = broken ? 0.0f / 0.0f : logit;
                }
                ++row;
            }
        }
        assert(row * vocab == logits.size());
        rows_most = std::max(rows_most, rows);
        if (clock != nullptr) clock->advance_ms(run_ms + rows * row_ms);
    }
    void copy_block(uint32_t from, uint32_t to) override {
        ++blocks_copied;
        kv_.resize(static_cast<size_t>(blocks) * engine::kBlockTokens, -1);
        for (size_t i = 0; i < engine::kBlockTokens; ++i)
            kv_.at(to * engine::kBlockTokens + i) = kv_.at(from * engine::kBlockTokens + i);
    }
    uint32_t vocab_size() const override { return vocab; }
    uint32_t context_tokens() const override { return context; }
    uint32_t kv_blocks() const override { return blocks; }
    uint64_t kv_bytes() const override { return 0; }
    uint64_t weight_bytes() const override { return 0; }
    const char* kernel() const override { return "fake"; }
    uint32_t threads() const override { return 1; }

  private:
    static uint64_t mix(uint64_t x) {  // SplitMix64's finisher
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
        x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
        return x ^ (x >> 31);
    }
    static size_t at(const engine::Chunk& chunk, size_t position) {
        assert(position / engine::kBlockTokens < chunk.blocks.size());
        return static_cast<size_t>(chunk.blocks[position / engine::kBlockTokens]) *
                   engine::kBlockTokens +
               position % engine::kBlockTokens;
    }
    model::Token followed(const engine::Chunk& chunk, size_t end) const {
        for (size_t p = end; end > 0 && p-- > 1;)
            if (kv_.at(at(chunk, p)) == kv_.at(at(chunk, end)) &&
                kv_.at(at(chunk, p - 1)) == kv_.at(at(chunk, end - 1)))
                return kv_.at(at(chunk, p + 1));
        return -1;
    }
    std::vector<model::Token> kv_;
};

class FakeVocabulary final : public engine::Vocabulary {
  public:
    std::vector<std::string> words = {"",     "a",    "b",        "ab", "ba",       " the",
                                      "\n",   "x",    "yz",       "é",  "\xF0\x9F", "\x98\x80",
                                      "STOP", "ST",   "OP",       "!",  "c",        "cd",
                                      "d",    "\xE2", "\x82\xAC", "0",  "1",        "2"};
    std::string_view bytes(model::Token token) const override {
        return words.at(static_cast<size_t>(token));
    }
    bool ends_answer(model::Token token) const override { return token == 0; }
};

// What came out of each sequence. One credit is taken for each piece, as a service would.
class RecordingSink final : public engine::Sink {
  public:
    struct Answer {
        bool admitted = false;
        std::string text;
        std::vector<std::string> pieces;
        std::vector<model::Token> ids;
        std::vector<int64_t> stamps;
        std::optional<engine::Finished> finished;
        std::optional<engine::Failed> failed;
        bool over() const { return finished || failed; }
    };
    std::map<engine::Handle, Answer> answers;
    engine::Engine* engine = nullptr;  // set to take credit

    void admitted(engine::Handle handle, uint32_t) override { answers[handle].admitted = true; }
    void text(engine::Handle handle, const engine::Piece& piece, int64_t stamp_ns) override {
        Answer& a = answers[handle];
        a.text += piece.text;
        a.pieces.push_back(piece.text);
        a.ids.insert(a.ids.end(), piece.ids.begin(), piece.ids.end());
        a.stamps.push_back(stamp_ns);
        if (engine != nullptr) engine->grant(handle, -1);
    }
    void finished(engine::Handle handle, const engine::Finished& f) override {
        answers[handle].finished = f;
    }
    void failed(engine::Handle handle, const engine::Failed& f) override {
        answers[handle].failed = f;
    }
};

// Greedy and seeded, with penalties, with stops.
inline engine::Job mixed_job(uint32_t n, uint32_t prompt_tokens = 40, uint64_t max_tokens = 60) {
    engine::Job j;
    for (uint32_t i = 0; i < prompt_tokens; ++i)
        j.prompt.push_back(static_cast<model::Token>(1 + (n * 7 + i * 5 + n * i) % 23));
    j.max_tokens = max_tokens;
    j.sampling.temperature = n % 2 == 0 ? 0.0f : 1.0f;
    j.sampling.seed = 1000 + n;
    if (n % 3 == 0) j.sampling.repetition_penalty = 1.2f;
    if (n % 5 == 0) j.sampling.frequency_penalty = 0.5f;
    if (n % 7 == 3) j.sampling.top_p = 0.8f;
    if (n % 4 == 1) j.stops = {"STOP", "ab", "xyz"};
    j.credit = 1'000'000;
    return j;
}

}  // namespace parley::test
