// Each architecture beside an independent computation: a forward pass in doubles, one position at a time, by
// the formulas of the papers, on float weights; and its own bits across chunks, batches and kernel paths.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>

#include "engine/forward.hpp"
#include "kernels/kernels.hpp"
#include "tiny_model.hpp"

using namespace parley;

namespace {

using Logits = std::vector<float>;
using Values = std::vector<double>;

model::Gguf parsed(const test::TinyModel& model) {
    auto file = model::Gguf::parse(model.build());
    if (!file) FAIL(file.error().what);
    return std::move(*file);
}

class Naive {
  public:
    Naive(const model::Gguf& file, const test::TinyModel& model) : file_(file), model_(model) {}

    // Logits after the last token.
    Values logits(const std::vector<model::Token>& text) {
        const uint32_t layers = model_.layers;
        keys_.assign(layers, {});
        values_.assign(layers, {});
        Values x;
        for (uint32_t position = 0; position < text.size(); ++position) {
            const Values table = tensor("token_embd.weight");
            const auto from = table.begin() + text[position] * int64_t{model_.embedding};
            x.assign(from, from + model_.embedding);
            for (uint32_t i = 0; i < layers; ++i) layer(i, position, x);
        }
        return times("output.weight", norm(x, tensor("output_norm.weight")));
    }

  private:
    Values tensor(const std::string& name) const {
        const model::Tensor* found = file_.tensor(name);
        REQUIRE(found != nullptr);
        REQUIRE(found->type == kernels::Type::f32);
        std::vector<float> floats(found->data.size() / 4);
        std::memcpy(floats.data(), found->data.data(), found->data.size());
        return {floats.begin(), floats.end()};
    }

    Values times(const std::string& name, const Values& x) const {
        const Values w = tensor(name);
        Values y(w.size() / x.size());
        for (size_t r = 0; r < y.size(); ++r) {
            for (size_t c = 0; c < x.size(); ++c) y[r] += w[r * x.size() + c] * x[c];
        }
        return y;
    }

    static Values norm(const Values& x, const Values& w) {
        double squares = 0;
        for (const double v : x) squares += v * v;
        Values y(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
            y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5) * w[i];
        }
        return y;
    }

    // One projection's heads, with bias, norm and rotation.
    std::vector<Values> heads(const std::string& at, char which, const Values& x,
                              uint32_t position) const {
        const std::string name = at + "attn_" + which;
        Values flat = times(name + ".weight", x);
        if (model_.architecture == "qwen2") {
            const Values bias = tensor(name + ".bias");
            for (size_t i = 0; i < flat.size(); ++i) flat[i] += bias[i];
        }
        std::vector<Values> out;
        for (auto it = flat.begin(); it != flat.end(); it += model_.head_dim) {
            Values head(it, it + model_.head_dim);
            if (which != 'v') {
                if (model_.architecture == "qwen3") head = norm(head, tensor(name + "_norm.weight"));
                const uint32_t half = model_.rope_dims / 2;
                const bool adjacent = model_.architecture == "llama";
                for (uint32_t i = 0; i < half; ++i) {
                    const double angle = position / std::pow(10000.0, double(i) / half);
                    double& a = head[adjacent ? 2 * i : i];
                    double& b = head[adjacent ? 2 * i + 1 : i + half];
                    const double c = std::cos(angle), s = std::sin(angle), old = a;
                    a = old * c - b * s;
                    b = old * s + b * c;
                }
            }
            out.push_back(head);
        }
        return out;
    }

    void layer(uint32_t index, uint32_t position, Values& x) {
        const std::string at = "blk." + std::to_string(index) + ".";
        const Values in = norm(x, tensor(at + "attn_norm.weight"));
        const auto q = heads(at, 'q', in, position);
        keys_[index].push_back(heads(at, 'k', in, position));
        values_[index].push_back(heads(at, 'v', in, position));
        Values attended;
        for (uint32_t h = 0; h < model_.heads; ++h) {
            const uint32_t kv = h / (model_.heads / model_.kv_heads);
            Values out(model_.head_dim);
            double sum = 0;
            for (uint32_t p = 0; p <= position; ++p) {
                double score = 0;
                for (uint32_t d = 0; d < model_.head_dim; ++d) score += q[h][d] * keys_[index][p][kv][d];
                const double e = std::exp(score / std::sqrt(double(model_.head_dim)));
                sum += e;
                for (uint32_t d = 0; d < model_.head_dim; ++d) out[d] += e * values_[index][p][kv][d];
            }
            for (const double v : out) attended.push_back(v / sum);
        }
        const Values projected = times(at + "attn_output.weight", attended);
        for (size_t i = 0; i < x.size(); ++i) x[i] += projected[i];
        const Values ffn = norm(x, tensor(at + "ffn_norm.weight"));
        Values gate = times(at + "ffn_gate.weight", ffn);
        const Values up = times(at + "ffn_up.weight", ffn);
        for (size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
        const Values down = times(at + "ffn_down.weight", gate);
        for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
    }

    const model::Gguf& file_;
    const test::TinyModel& model_;
    std::vector<std::vector<std::vector<Values>>> keys_, values_;  // [layer][position][head][dim]
};

std::vector<model::Token> text_of(uint32_t count) {
    std::mt19937 random{17};
    std::vector<model::Token> text(count);
    for (auto& token : text) token = static_cast<model::Token>(random() % 83);
    return text;
}

Logits engine_logits(const model::Gguf& file, const std::string& kernel,
                     const std::vector<model::Token>& text, uint32_t chunk_size, bool beside) {
    engine::ForwardOptions options;
    options.kernel = kernel;
    options.threads = 2;
    options.rows_max = 400;
    options.kv_blocks = 64;
    auto forward = engine::Forward::create(file, options);
    if (!forward) FAIL(forward.error().what);
    std::vector<uint32_t> blocks, other;
    for (uint32_t i = 0; i < 24; ++i) {
        blocks.push_back(30 - i);
        other.push_back(31 + i);
    }
    const uint32_t vocab = (*forward)->vocab_size();
    Logits logits(2 * vocab);
    for (uint32_t at = 0; at < text.size(); at += chunk_size) {
        const auto count = std::min<uint32_t>(chunk_size, static_cast<uint32_t>(text.size()) - at);
        std::vector<engine::Chunk> chunks{{std::span(text).subspan(at, count), at, blocks, true}};
        if (beside) chunks.push_back({std::span(text).subspan(0, 5), 0, other, true});
        (*forward)->run(chunks, std::span(logits).subspan(0, chunks.size() * vocab));
    }
    logits.resize(vocab);
    return logits;
}

}  // namespace

TEST_CASE("llama, qwen2 and qwen3 give the logits of a forward pass in doubles to 0.3 %",
          "[architectures]") {
    for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
        for (const uint32_t rope_dims : {32u, 16u}) {
            test::TinyModel model;
            model.architecture = architecture;
            model.types = {kernels::Type::f32};
            model.rope_dims = rope_dims;
            const model::Gguf file = parsed(model);
            const auto text = text_of(40);
            const Values expected = Naive{file, model}.logits(text);
            const Logits got = engine_logits(file, kernels::best().name, text, 40, false);
            double most = 0, apart = 0;
            REQUIRE(got.size() == expected.size());
            for (size_t i = 0; i < got.size(); ++i) {
                most = std::max(most, std::fabs(expected[i]));
                apart = std::max(apart, std::fabs(expected[i] - got[i]));
            }
            INFO(architecture << ", RoPE over " << rope_dims << ": " << apart << " of " << most);
            CHECK(most > 0.1);
            // Keys and values are kept in 16 bits: 2^-11 each.
            CHECK(apart < 0.003 * most);
        }
    }
}

TEST_CASE("qwen2 and qwen3 have the same bits in every chunking, batch and kernel path",
          "[architectures]") {
    for (const char* architecture : {"qwen2", "qwen3"}) {
        test::TinyModel model;
        model.architecture = architecture;
        const model::Gguf file = parsed(model);
        const auto text = text_of(270);
        Logits expected;
        for (const std::string_view name : kernels::names()) {
            if (kernels::find(name) == nullptr) continue;
            for (const uint32_t size : {270u, 7u, 1u}) {
                if (name == "reference" && size != 270) continue;  // slow, and the same code
                for (const bool beside : {false, true}) {
                    const Logits got = engine_logits(file, std::string{name}, text, size, beside);
                    if (expected.empty()) expected = got;
                    INFO(architecture << " " << name << " chunks of " << size << " beside " << beside);
                    REQUIRE(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
                }
            }
        }
    }
}

TEST_CASE("a qwen2 file without a bias and a qwen3 file without a head norm are refused by name",
          "[architectures]") {
    for (const auto& [architecture, tensor] :
         {std::pair{"qwen2", "blk.1.attn_v.bias"}, {"qwen3", "blk.0.attn_k_norm.weight"}}) {
        test::TinyModel model;
        model.architecture = architecture;
        model.leave_out = tensor;
        const model::Gguf file = parsed(model);
        engine::ForwardOptions options;
        options.kv_blocks = 8;
        const auto forward = engine::Forward::create(file, options);
        REQUIRE(!forward);
        CHECK(forward.error().what.find(tensor) != std::string::npos);
    }
}
