// Each architecture beside an independent computation: a forward pass in doubles, one position at a time, by
// the formulas of the papers, on float weights; and its own bits across chunks, batches and kernel paths.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <random>

#include "engine/forward.hpp"
#include "engine/rope_table.hpp"
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

// What turns a pair: its angle at a position, and what cos and sin are multiplied by.
struct Turn {
    double angle;
    double magnitude = 1;
};
using RopeFormula = std::function<Turn(uint32_t position, uint32_t pair)>;

// By the paper: base 10000 unless said otherwise.
Turn plain_turn(uint32_t position, uint32_t pair, uint32_t half, double base = 10000) {
    return {position / std::pow(base, double(pair) / half)};
}

class Naive {
  public:
    Naive(const model::Gguf& file, const test::TinyModel& model, RopeFormula rope = {},
          double global_base = 10000)
        : file_(file),
          model_(model),
          gemma3_(model.architecture == "gemma3"),
          rope_(std::move(rope)),
          global_base_(global_base) {}

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
            for (double& v : x) v *= gemma3_ ? std::sqrt(double(model_.embedding)) : 1;
            for (uint32_t i = 0; i < layers; ++i) layer(i, position, x);
        }
        return times(file_.tensor("output.weight") ? "output.weight" : "token_embd.weight", norm(x, tensor("output_norm.weight")));
    }

  private:
    const Values& tensor(const std::string& name) const {
        Values& kept = tensors_[name];
        if (kept.empty()) kept = read(name);
        return kept;
    }

    // Of every six layers of Gemma 3 the sixth sees all.
    bool windowed(uint32_t layer) const { return gemma3_ && layer % 6 != 5; }

    Values read(const std::string& name) const {
        const model::Tensor* found = file_.tensor(name);
        REQUIRE(found != nullptr);
        REQUIRE(found->type == kernels::Type::f32);
        std::vector<float> floats(found->data.size() / 4);
        std::memcpy(floats.data(), found->data.data(), found->data.size());
        return {floats.begin(), floats.end()};
    }

    Values times(const std::string& name, const Values& x) const {
        const Values& w = tensor(name);
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
    std::vector<Values> heads(uint32_t layer, const std::string& at, char which, const Values& x,
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
                if (model_.architecture == "qwen3" || gemma3_)
                    head = norm(head, tensor(name + "_norm.weight"));
                const uint32_t half = model_.rope_dims / 2;
                const bool adjacent = model_.architecture == "llama";
                for (uint32_t i = 0; i < half; ++i) {
                    Turn turn = plain_turn(position, i, half, windowed(layer) ? 10000 : global_base_);
                    if (rope_ && !windowed(layer)) turn = rope_(position, i);
                    double& a = head[adjacent ? 2 * i : i];
                    double& b = head[adjacent ? 2 * i + 1 : i + half];
                    const double c = std::cos(turn.angle) * turn.magnitude;
                    const double s = std::sin(turn.angle) * turn.magnitude, old = a;
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
        const auto q = heads(index, at, 'q', in, position);
        keys_[index].push_back(heads(index, at, 'k', in, position));
        values_[index].push_back(heads(index, at, 'v', in, position));
        Values attended;
        for (uint32_t h = 0; h < model_.heads; ++h) {
            const uint32_t kv = h / (model_.heads / model_.kv_heads);
            Values out(model_.head_dim);
            double sum = 0;
            const uint32_t begin =
                windowed(index) && position >= model_.window ? position - model_.window + 1 : 0;
            for (uint32_t p = begin; p <= position; ++p) {
                double score = 0;
                for (uint32_t d = 0; d < model_.head_dim; ++d) score += q[h][d] * keys_[index][p][kv][d];
                const double e = std::exp(score / std::sqrt(double(model_.head_dim)));
                sum += e;
                for (uint32_t d = 0; d < model_.head_dim; ++d) out[d] += e * values_[index][p][kv][d];
            }
            for (const double v : out) attended.push_back(v / sum);
        }
        Values projected = times(at + "attn_output.weight", attended);
        if (gemma3_) projected = norm(projected, tensor(at + "post_attention_norm.weight"));
        for (size_t i = 0; i < x.size(); ++i) x[i] += projected[i];
        const Values ffn = norm(x, tensor(at + "ffn_norm.weight"));
        Values gate = times(at + "ffn_gate.weight", ffn);
        const Values up = times(at + "ffn_up.weight", ffn);
        for (size_t i = 0; i < gate.size(); ++i) {
            const double g = gate[i];
            const double silu = g / (1 + std::exp(-g));
            const double gelu =
                g / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (g + 0.044715 * g * g * g)));
            gate[i] = (gemma3_ ? gelu : silu) * up[i];
        }
        Values down = times(at + "ffn_down.weight", gate);
        if (gemma3_) down = norm(down, tensor(at + "post_ffw_norm.weight"));
        for (size_t i = 0; i < x.size(); ++i) x[i] += down[i];
    }

    const model::Gguf& file_;
    const test::TinyModel& model_;
    const bool gemma3_;
    const RopeFormula rope_;  // of the layers without a window; none: plain
    const double global_base_;
    mutable std::map<std::string, Values> tensors_;
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
    options.rows_max = 640;
    options.kv_blocks = 64;
    auto forward = engine::Forward::create(file, options);
    if (!forward) FAIL(forward.error().what);
    std::vector<uint32_t> blocks, other;
    const auto needed = static_cast<uint32_t>(text.size()) / engine::kBlockTokens + 1;
    for (uint32_t i = 0; i < needed; ++i) blocks.push_back(needed - i);
    for (uint32_t i = 0; i < 2; ++i) other.push_back(needed + 1 + i);
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

namespace {

// Logits of the whole text by the doubles' pass and by the engine's best path.
void check_near(const test::TinyModel& model, uint32_t length, const RopeFormula& rope = {},
                double global_base = 10000) {
    const model::Gguf file = parsed(model);
    const auto text = text_of(length);
    const Values expected = Naive{file, model, rope, global_base}.logits(text);
    const Logits got = engine_logits(file, kernels::best().name, text, length, false);
    double most = 0, apart = 0;
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
        most = std::max(most, std::fabs(expected[i]));
        apart = std::max(apart, std::fabs(expected[i] - got[i]));
    }
    INFO(model.architecture << ": " << apart << " of " << most);
    CHECK(most > 0.1);
    // Keys and values are kept in 16 bits: 2^-11 each.
    CHECK(apart < 0.003 * most);
}

test::TinyModel gemma3(uint32_t window) {
    test::TinyModel model;
    model.architecture = "gemma3";
    model.layers = 7;  // the sixth sees all
    model.window = window;
    model.own_output = false;
    model.rope_base = 1e6f;
    return model;
}

}  // namespace

TEST_CASE("gemma3 gives the logits of a forward pass in doubles to 0.3 %, within its window and past it",
          "[architectures]") {
    for (const auto& [window, length] : {std::pair{20u, 15u}, {20u, 45u}, {1u, 20u}, {270u, 300u}}) {
        test::TinyModel model = gemma3(window);
        model.types = {kernels::Type::f32};
        INFO("window " << window << " of " << length);
        check_near(model, length, {}, 1e6);
    }
}

TEST_CASE("gemma3 has the same bits in every chunking, batch and kernel path, and behind a shared prefix",
          "[architectures]") {
    for (const auto& [window, length] : {std::pair{20u, 100u}, {270u, 600u}}) {
        const model::Gguf file = parsed(gemma3(window));
        const auto text = text_of(length);
        Logits expected;
        for (const std::string_view name : kernels::names()) {
            if (kernels::find(name) == nullptr) continue;
            for (const uint32_t size : {length, 37u, 6u, 1u}) {
                if (name == "reference" && size != 37) continue;  // slow
                for (const bool beside : {false, true}) {
                    const Logits got =
                        engine_logits(file, std::string{name}, text, size, beside);
                    if (expected.empty()) expected = got;
                    INFO("window " << window << " " << name << " chunks of " << size << " beside "
                                   << beside);
                    REQUIRE(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
                }
            }
        }
        // The blocks of another sequence's prefix, as a hit of the prefix cache gives them.
        engine::ForwardOptions options;
        options.rows_max = 400;
        options.kv_blocks = 80;
        auto forward = engine::Forward::create(file, options);
        REQUIRE(forward);
        std::vector<uint32_t> first, second;
        for (uint32_t i = 0; i <= length / engine::kBlockTokens; ++i) {
            first.push_back(i);
            second.push_back(i < 4 ? i : 40 + i);
        }
        Logits logits((*forward)->vocab_size());
        auto other = text_of(100);
        std::copy(text.begin(), text.begin() + 64, other.begin());
        const engine::Chunk before{other, 0, first, 1};
        (*forward)->run({&before, 1}, logits);
        for (uint32_t at = 64; at < length; at += 300) {
            const uint32_t count = std::min(300u, length - at);
            const engine::Chunk rest{std::span(text).subspan(at, count), at, second, 1};
            (*forward)->run({&rest, 1}, logits);
        }
        REQUIRE(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("a window hides what is before it: other tokens there leave one layer's logits as they are",
          "[architectures]") {
    test::TinyModel model = gemma3(32);
    model.layers = 1;
    const model::Gguf file = parsed(model);
    auto text = text_of(100);
    const Logits expected = engine_logits(file, kernels::best().name, text, 50, false);
    text[68] = (text[68] + 1) % 83;  // the first that position 99 sees
    const Logits inside = engine_logits(file, kernels::best().name, text, 50, false);
    CHECK(std::memcmp(inside.data(), expected.data(), inside.size() * sizeof(float)) != 0);
    text = text_of(100);
    text[67] = (text[67] + 1) % 83;
    const Logits outside = engine_logits(file, kernels::best().name, text, 50, false);
    CHECK(std::memcmp(outside.data(), expected.data(), outside.size() * sizeof(float)) == 0);
}

TEST_CASE("llama, qwen2 and qwen3 give the logits of a forward pass in doubles to 0.3 %",
          "[architectures]") {
    for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
        for (const uint32_t rope_dims : {32u, 16u}) {
            test::TinyModel model;
            model.architecture = architecture;
            model.types = {kernels::Type::f32};
            model.rope_dims = rope_dims;
            INFO("RoPE over " << rope_dims);
            check_near(model, 40);
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

namespace {

constexpr double kTurnWhole = 6.283185307179586;

test::TinyModel scaled(const char* type, std::function<void(test::GgufWriter&)> keys = {}) {
    test::TinyModel model;
    model.types = {kernels::Type::f32};
    model.change = [=](test::GgufWriter& file) {
        if (*type) file.string("llama.rope.scaling.type", type);
        if (keys) keys(file);
    };
    return model;
}

}  // namespace

TEST_CASE("linear RoPE scaling divides positions, and an old file's scale_linear is the same",
          "[architectures]") {
    for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
        const bool old = std::string_view{key}.ends_with("scale_linear");
        check_near(scaled(old ? "" : "linear",
                          [=](test::GgufWriter& file) { file.f32(key, 2.5f); }),
                   40, [](uint32_t position, uint32_t pair) {
                       return Turn{position / 2.5 / std::pow(10000.0, pair / 16.0)};
                   });
    }
    // One that says none is not scaled, whatever the factor.
    check_near(scaled("none", [](test::GgufWriter& file) { file.f32("llama.rope.scaling.factor", 2.5f); }),
               40);
}

// By the paper (Peng et al. 2023, NTK by parts) as Hugging Face's transformers computes it.
TEST_CASE("YaRN scales each pair by how often it turns, and sharpens attention", "[architectures]") {
    for (const bool own_betas : {false, true}) {
        const double fast = own_betas ? 16 : 32, slow = own_betas ? 2 : 1, factor = 4, original = 512;
        const auto model = scaled("yarn", [=](test::GgufWriter& file) {
            file.f32("llama.rope.scaling.factor", static_cast<float>(factor))
                .u32("llama.rope.scaling.original_context_length", static_cast<uint32_t>(original));
            if (own_betas) {
                file.f32("llama.rope.scaling.yarn_beta_fast", static_cast<float>(fast))
                    .f32("llama.rope.scaling.yarn_beta_slow", static_cast<float>(slow));
            }
        });
        const auto correction = [&](double turns) {
            return 32 * std::log(original / (turns * kTurnWhole)) / (2 * std::log(10000.0));
        };
        const double low = std::max(std::floor(correction(fast)), 0.0);
        const double high = std::min(std::ceil(correction(slow)), 31.0);
        REQUIRE(low > 0);
        REQUIRE(high < 16);
        check_near(model, 60, [=](uint32_t position, uint32_t pair) {
            const double extrapolated = 1 / std::pow(10000.0, pair / 16.0);
            const double ramp = std::min(std::max((pair - low) / (high - low), 0.0), 1.0);
            const double frequency = extrapolated / factor * ramp + extrapolated * (1 - ramp);
            return Turn{position * frequency, 0.1 * std::log(factor) + 1};
        });
    }
}

TEST_CASE("Llama 3's rope_freqs give the frequencies of its own formula", "[architectures]") {
    const double factor = 8, low = 1, high = 4, original = 64;
    const auto llama3 = [=](double frequency) {
        const double wave = kTurnWhole / frequency;
        if (wave > original / low) return frequency / factor;
        if (wave < original / high) return frequency;
        const double smooth = (original / wave - low) / (high - low);
        return (1 - smooth) * frequency / factor + smooth * frequency;
    };
    test::TinyModel model = scaled("");
    uint32_t kept = 0, divided = 0;
    for (uint32_t pair = 0; pair < 16; ++pair) {
        const double own = 1 / std::pow(10000.0, pair / 16.0);
        model.rope_divisors.push_back(static_cast<float>(own / llama3(own)));
        kept += model.rope_divisors.back() == 1;
        divided += model.rope_divisors.back() == 8;
    }
    REQUIRE(kept > 0);
    REQUIRE(divided > 0);
    REQUIRE(kept + divided < 16);
    check_near(model, 60, [=](uint32_t position, uint32_t pair) {
        return Turn{position * llama3(1 / std::pow(10000.0, pair / 16.0))};
    });
}

TEST_CASE("gemma3's scaling is for the layers that see all, not for those with a window",
          "[architectures]") {
    test::TinyModel model = gemma3(20);
    model.types = {kernels::Type::f32};
    model.change = [](test::GgufWriter& file) {
        file.string("gemma3.rope.scaling.type", "linear").f32("gemma3.rope.scaling.factor", 8.0f);
    };
    check_near(model, 45, [](uint32_t position, uint32_t pair) {
        return Turn{position / 8.0 / std::pow(1e6, pair / 16.0)};
    });
}

// The numbers of another program (Python, by transformers' formula) for Qwen 2.5's configuration.
TEST_CASE("YaRN's frequencies are those computed elsewhere", "[architectures]") {
    engine::RopeScaling scaling;
    scaling.yarn = true;
    scaling.factor = 4;
    scaling.original_context = 32768;
    const auto table = engine::RopeTable::make(1e6, 128, scaling, {});
    CHECK(table.magnitude == Approx(1.138629436111989).epsilon(1e-12));
    REQUIRE(table.frequencies.size() == 64);
    for (const auto& [pair, frequency] : {std::pair{0, 1.0},
                                          {10, 0.11547819846894582},
                                          {23, 0.006978305848598663},
                                          {24, 0.005375321490790102},
                                          {30, 0.001064360981247002},
                                          {39, 6.490394320837029e-05},
                                          {40, 4.445698525097307e-05},
                                          {63, 3.102344401879299e-07}}) {
        CHECK(table.frequencies[pair] == Approx(frequency).epsilon(1e-12));
    }
}

TEST_CASE("a RoPE scaling that is not computed, or a number that cannot be, is refused by name",
          "[architectures]") {
    const auto refused = [](const char* type, const char* key, float value, base::Errc code,
                            const std::string& named) {
        const model::Gguf file = parsed(scaled(type, [=](test::GgufWriter& writer) {
            if (*key) writer.f32(key, value);
        }));
        engine::ForwardOptions options;
        options.kv_blocks = 8;
        const auto forward = engine::Forward::create(file, options);
        INFO(type << " " << key << " " << value);
        REQUIRE(!forward);
        CHECK(forward.error().code == code);
        CHECK(forward.error().what.find(named) != std::string::npos);
    };
    using base::Errc;
    refused("longrope", "", 0, Errc::unsupported, "'longrope'");
    refused("YARN", "", 0, Errc::unsupported, "'YARN'");
    refused("linear", "llama.rope.scaling.factor", 0, Errc::corrupt, "scaling.factor");
    refused("linear", "llama.rope.scaling.factor", -4, Errc::corrupt, "scaling.factor");
    refused("yarn", "llama.rope.scaling.factor", std::numeric_limits<float>::infinity(), Errc::corrupt,
            "scaling.factor");
    refused("yarn", "llama.rope.scaling.yarn_beta_fast", std::nanf(""), Errc::corrupt, "yarn_beta_fast");
    refused("yarn", "llama.rope.scaling.yarn_log_multiplier", 0.1f, Errc::unsupported,
            "yarn_log_multiplier");
    refused("yarn", "llama.rope.scaling.yarn_ext_factor", 0.5f, Errc::unsupported, "yarn_ext_factor");
    for (const float divisor : {0.0f, -1.0f, std::nanf("")}) {
        test::TinyModel model = scaled("");
        model.rope_divisors.assign(16, 1.0f);
        model.rope_divisors[7] = divisor;
        const model::Gguf file = parsed(model);
        engine::ForwardOptions options;
        options.kv_blocks = 8;
        const auto forward = engine::Forward::create(file, options);
        REQUIRE(!forward);
        CHECK(forward.error().what.find("'rope_freqs.weight'") != std::string::npos);
    }
}

TEST_CASE("a qwen2 file without a bias, or a qwen3 or gemma3 file without a norm, is refused by name",
          "[architectures]") {
    for (const auto& [architecture, tensor] :
         {std::pair{"qwen2", "blk.1.attn_v.bias"}, {"qwen3", "blk.0.attn_k_norm.weight"},
          {"gemma3", "blk.1.post_ffw_norm.weight"}, {"gemma3", "blk.0.post_attention_norm.weight"}}) {
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

TEST_CASE("gemma3 with a soft cap or without its window's width is refused by name", "[architectures]") {
    const auto refusal = [](const test::TinyModel& model) {
        const model::Gguf file = parsed(model);
        engine::ForwardOptions options;
        options.kv_blocks = 8;
        const auto forward = engine::Forward::create(file, options);
        REQUIRE(!forward);
        return forward.error();
    };
    test::TinyModel model = gemma3(20);
    model.change = [](test::GgufWriter& file) { file.f32("gemma3.final_logit_softcapping", 30.0f); };
    CHECK(refusal(model).code == base::Errc::unsupported);
    CHECK(refusal(model).what.find("final_logit_softcapping") != std::string::npos);
    model = gemma3(0);
    CHECK(refusal(model).code == base::Errc::corrupt);
    CHECK(refusal(model).what.find("sliding_window") != std::string::npos);
}
