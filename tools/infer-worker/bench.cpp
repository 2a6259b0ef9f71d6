// infer-worker bench: how fast prompts come in and tokens go out, in several batch sizes, through the
// engine itself (scheduler, sampler and text included; no socket). Every sequence has its own prompt,
// but for its first --cached-tokens, which were computed before the time is taken; or those of real requests
// (--requests). With --speculate each run is made twice, first without. Beside each stands its
// share of the roofline (roofline.hpp): for decode what an iteration must read, weights and KV, over the
// measured read bandwidth; for prefill the weights' products over the measured int8 peak.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>

#include "base/file.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "load.hpp"
#include "messages/request.hpp"
#include "model/gguf.hpp"
#include "perplexity.hpp"
#include "roofline.hpp"

namespace parley::infer_worker {
namespace {

// Ends nothing, so that every answer has its full length.
class Endless final : public engine::Vocabulary {
  public:
    std::string_view bytes(model::Token) const override { return "x"; }
    bool ends_answer(model::Token) const override { return false; }
};

// Of real requests: their answers end where the model ends them.
class Words final : public engine::Vocabulary {
  public:
    explicit Words(const model::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    std::string_view bytes(model::Token token) const override { return tokenizer_.bytes(token); }
    bool ends_answer(model::Token token) const override {
        return tokenizer_.is_end_of_generation(token);
    }

  private:
    const model::Tokenizer& tokenizer_;
};

using Tokens = std::vector<model::Token>;

class Watch final : public engine::Sink {
  public:
    struct Seen {
        int64_t first_ns = 0;
        int64_t last_ns = 0;
        uint32_t tokens = 0;
        Tokens ids;
    };
    std::map<engine::Handle, Seen> seen;
    void admitted(engine::Handle, uint32_t) override {}
    void text(engine::Handle handle, const engine::Piece& piece, int64_t stamp_ns) override {
        Seen& s = seen[handle];
        if (s.tokens == 0) s.first_ns = stamp_ns;
        s.last_ns = stamp_ns;
        s.tokens += static_cast<uint32_t>(piece.ids.size());
        s.ids.insert(s.ids.end(), piece.ids.begin(), piece.ids.end());
    }
    void finished(engine::Handle handle, const engine::Finished& f) override {
        seen[handle].tokens = f.output_tokens;
    }
    void failed(engine::Handle, const engine::Failed&) override {}
};

struct Sample {
    double prefill_tok_s = 0;  // all prompts: tokens over the time until the last first token
    double decode_tok_s = 0;   // tokens after every first one, over the time that all decode
    double first_ms = 0;       // until the first token of the first sequence
    double step_ms = 0;        // decode iteration, the mean
    double itl_p50_ms = 0;     // between two tokens of one sequence while all decode
    double itl_p99_ms = 0;
    double drafted = 0;        // tokens guessed and computed, and those that came true
    double accepted = 0;
};

// The value that the share `rank` (0 to 1) of the values does not exceed; 0 of none.
double quantile(std::vector<double> values, double rank) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(rank * static_cast<double>(values.size() - 1) + 0.5)];
}

struct Asked {
    std::vector<engine::Job> jobs;  // of requests, in turn; empty: random prompts, greedy
    const engine::Vocabulary& vocabulary;
};

// `answers`: what came out; a later run must say the same.
Sample measure(engine::Forward& forward, const Options& o, const Asked& asked, uint32_t batch,
               uint64_t salt, std::vector<Tokens>& answers) {
    Watch watch;
    engine::EngineOptions options = o.service.engine;
    options.slots_max = options.queue_max = batch;
    options.prefill_target_ms = options.alone_target_ms = 0;  // whole prompts at once
    engine::Engine engine(forward, asked.vocabulary, options, watch);
    const base::Clock& clock = base::system_clock();
    uint64_t state = 0x9E3779B97F4A7C15ull * (salt + 1);
    const auto draw = [&](std::vector<model::Token>& tokens, uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;  // Knuth's MMIX
            tokens.push_back(static_cast<model::Token>((state >> 33) % forward.vocab_size()));
        }
    };
    engine::Job before;
    if (o.cached_tokens > 0) {
        draw(before.prompt, o.cached_tokens);
        before.tenant = "bench";
        before.credit = 1;
        (void)engine.submit(engine::Job(before));
        while (engine.step()) {
        }
        watch.seen.clear();
    }
    uint64_t prompt_tokens = 0;
    for (uint32_t n = 0; n < batch; ++n) {
        engine::Job job = before;
        if (asked.jobs.empty()) {
            draw(job.prompt, o.prompt_tokens - o.cached_tokens);
            job.sampling.temperature = 0;
        } else {
            job = asked.jobs[n % asked.jobs.size()];
            job.sampling.seed = salt + n;
        }
        prompt_tokens += job.prompt.size();
        job.max_tokens = o.decode_tokens + 1;
        job.credit = 1 << 30;
        (void)engine.submit(std::move(job));
    }
    const int64_t started_ns = clock.mono_ns();
    int64_t prefilled_ns = 0;
    uint64_t tokens_before = 0;
    std::vector<double> steps_ms;
    int64_t stepped_ns = 0;
    while (engine.step()) {
        const int64_t now_ns = clock.mono_ns();
        if (prefilled_ns == 0 && watch.seen.size() == batch) {
            prefilled_ns = now_ns;
            for (const auto& [handle, s] : watch.seen) tokens_before += s.tokens;
        } else if (prefilled_ns != 0) {
            steps_ms.push_back(static_cast<double>(now_ns - stepped_ns) * 1e-6);
        }
        stepped_ns = now_ns;
    }
    const int64_t ended_ns = clock.mono_ns();
    uint64_t tokens = 0;
    int64_t first_ns = ended_ns;
    for (const auto& [handle, s] : watch.seen) {
        tokens += s.tokens;
        first_ns = std::min(first_ns, s.first_ns);
    }
    Sample sample;
    const double prefill_s = static_cast<double>(prefilled_ns - started_ns) * 1e-9;
    const double decode_s = static_cast<double>(ended_ns - prefilled_ns) * 1e-9;
    sample.prefill_tok_s = static_cast<double>(prompt_tokens) / prefill_s;
    sample.decode_tok_s = static_cast<double>(tokens - tokens_before) / decode_s;
    sample.first_ms = static_cast<double>(first_ns - started_ns) * 1e-6;
    sample.step_ms = steps_ms.empty() ? 0 : decode_s * 1e3 / static_cast<double>(steps_ms.size());
    sample.itl_p50_ms = quantile(steps_ms, 0.5);
    sample.itl_p99_ms = quantile(steps_ms, 0.99);
    sample.drafted = static_cast<double>(engine.stats().drafted_tokens);
    sample.accepted = static_cast<double>(engine.stats().accepted_tokens);
    answers.clear();
    for (const auto& [handle, s] : watch.seen) answers.push_back(s.ids);
    return sample;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Sample median(const std::vector<Sample>& samples) {
    const auto of = [&](double Sample::*field) {
        std::vector<double> values;
        for (const Sample& s : samples) values.push_back(s.*field);
        return median(std::move(values));
    };
    return {of(&Sample::prefill_tok_s), of(&Sample::decode_tok_s), of(&Sample::first_ms),
            of(&Sample::step_ms),       of(&Sample::itl_p50_ms),    of(&Sample::itl_p99_ms),
            of(&Sample::drafted),       of(&Sample::accepted)};
}

// Products of one prompt token with the weights: every matrix of the blocks. The output matrix is used for
// a prompt's last token only, the embedding is looked up.
base::Result<double> products_per_token(const std::string& path) {
    const auto file = model::Gguf::open(path);
    if (!file) return base::fail(file.error());
    double products = 0;
    for (const model::Tensor& t : file->tensors())
        if (t.rank == 2 && t.name.starts_with("blk."))
            products += static_cast<double>(t.dims[0]) * static_cast<double>(t.dims[1]);
    return products;
}

// Against what a row is held.
struct Roofline {
    double read_b_s = 0;
    double int8_ops_s = 0;  // 0: not measured on this path
    double weight_bytes = 0;
    double kv_token_bytes = 0;
    double token_ops = 0;

    // Mean decode iteration at its best: weights once, each sequence's KV at the middle of its answer.
    double step_ms(const Options& o, const engine::Forward& forward, uint32_t batch) const {
        const uint32_t depth = o.prompt_tokens + o.decode_tokens / 2;
        const auto kv_bytes = static_cast<double>(forward.kv_read_bytes(depth));
        return (weight_bytes + batch * kv_bytes) / read_b_s * 1e3;
    }
    double prefill_tok_s() const { return token_ops == 0 ? 0 : int8_ops_s / token_ops; }
};

base::Result<Roofline> measure_roofline(const Options& o, const engine::Forward& forward) {
    Roofline r;
    const auto read = read_bytes_per_s(forward.weight_bytes(), forward.threads());
    if (!read) return base::fail(read.error());
    const auto ops = int8_ops_per_s(forward.kernel(), forward.threads());
    if (!ops) return base::fail(ops.error());
    const auto products = products_per_token(o.model);
    if (!products) return base::fail(products.error());
    r.read_b_s = *read;
    r.int8_ops_s = *ops;
    r.token_ops = 2 * *products;
    r.weight_bytes = static_cast<double>(forward.weight_bytes());
    r.kv_token_bytes = static_cast<double>(forward.kv_bytes()) / forward.kv_blocks() /
                       engine::kBlockTokens;
    return r;
}

// --requests: Messages API bodies, one a line.
base::Result<std::vector<engine::Job>> read_requests(const Options& o,
                                                     const model::Artifact& artifact) {
    std::vector<engine::Job> jobs;
    if (o.requests.empty()) return jobs;
    const auto text = base::read_file(o.requests);
    if (!text) return base::fail(text.error());
    size_t line = 0;
    for (size_t at = 0; at < text->size();) {
        const size_t end = std::min(text->find('\n', at), text->size());
        const std::string body = text->substr(at, end - at);
        at = end + 1;
        ++line;
        if (body.empty()) continue;
        const auto request = messages::parse_request(body);
        if (!request)
            return base::fail(base::Errc::corrupt, fmt::format("{}:{}: {}", o.requests, line,
                                                               request.error().message));
        engine::Job& job = jobs.emplace_back();
        job.prompt = artifact.chat_template().render(
            artifact.tokenizer(), messages::turns_as<model::Turn>(*request));
        job.sampling.temperature = static_cast<float>(request->temperature.value_or(1.0));
        job.sampling.top_p = static_cast<float>(request->top_p.value_or(1.0));
        job.sampling.top_k =
            static_cast<uint32_t>(std::min<uint64_t>(request->top_k.value_or(0), UINT32_MAX));
    }
    if (jobs.empty()) return base::fail(base::Errc::corrupt, o.requests + ": no request in it");
    return jobs;
}

int bench_perplexity(const Options& o, Loaded& loaded) {
    const auto text = base::read_file(o.perplexity);
    if (!text) return base::report("infer-worker", text.error());
    engine::Forward& forward = *loaded.forward;
    std::string_view bytes = *text;
    if (bytes.ends_with('\n')) bytes.remove_suffix(1);  // as llama-perplexity reads a file
    const auto p = measure_perplexity(forward, loaded.artifact->tokenizer(), bytes,
                                      o.perplexity_window, o.forward.rows_max);
    if (!p)
        return base::report("infer-worker",
                            {p.error().code, fmt::format("'{}': {}", o.perplexity, p.error().what)});
    if (!o.json) {
        fmt::print("{} {} · kernel {} · KV {} · {} threads\n\n"
                   "window  windows  scored  of tokens  perplexity  ± error\n"
                   "{:6}  {:7}  {:6}  {:9}  {:10.4f}  {:7.4f}\n",
                   loaded.artifact->name(), loaded.artifact->hash().substr(0, 12), forward.kernel(),
                   o.forward.kv_type, forward.threads(), o.perplexity_window, p->windows,
                   p->scored_tokens, p->text_tokens, p->perplexity, p->error);
        return 0;
    }
    std::string out;
    base::JsonWriter json(out);
    json.object()
        .field("model", loaded.artifact->name())
        .field("hash", loaded.artifact->hash())
        .field("kernel", forward.kernel())
        .field("threads", forward.threads())
        .field("kv_type", o.forward.kv_type)
        .field("window", o.perplexity_window)
        .field("windows", p->windows)
        .field("text_tokens", p->text_tokens)
        .field("scored_tokens", p->scored_tokens)
        .field("nll", p->nll)
        .field("perplexity", p->perplexity)
        .field("perplexity_error", p->error)
        .end();
    fmt::print("{}\n", out);
    return 0;
}

}  // namespace

int bench(const Options& options) {
    Options o = options;
    o.nice = 0;
    // Nothing here is a chat: a base model needs no template.
    if (o.chat_template.empty()) o.chat_template = "raw";
    std::vector<uint32_t> batches;
    for (const std::string& text : o.batches) {
        uint32_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1024)
            return base::report("infer-worker",
                                {base::Errc::usage, "--batch: '" + text + "' is not 1 to 1024"});
        batches.push_back(value);
    }
    auto loaded = load(o);
    if (!loaded) return base::report("infer-worker", loaded.error());
    engine::Forward& forward = *loaded->forward;
    if (!o.perplexity.empty()) return bench_perplexity(o, *loaded);
    if (o.depths.empty()) o.depths.push_back(std::to_string(o.prompt_tokens));
    std::vector<uint32_t> depths;
    for (const std::string& text : o.depths) {
        uint32_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value < 1)
            return base::report("infer-worker",
                                {base::Errc::usage, "--depth: '" + text + "' is no number of tokens"});
        depths.push_back(value);
    }
    const auto requests = read_requests(o, *loaded->artifact);
    if (!requests) return base::report("infer-worker", requests.error());
    if (!requests->empty()) {
        depths.assign(1, 0);
        for (const engine::Job& job : *requests)
            depths[0] = std::max(depths[0], static_cast<uint32_t>(job.prompt.size()));
    }
    const Endless endless;
    const Words words(loaded->artifact->tokenizer());
    const Asked asked{*requests, requests->empty() ? static_cast<const engine::Vocabulary&>(endless)
                                                   : words};
    const uint32_t speculate = o.compared_speculation;
    o.prompt_tokens = *std::min_element(depths.begin(), depths.end());
    const uint64_t deepest = static_cast<uint64_t>(*std::max_element(depths.begin(), depths.end())) +
                             o.decode_tokens + 1;
    if (deepest > o.forward.context_tokens)
        return base::report(
            "infer-worker",
            {base::Errc::usage, fmt::format("prompt and decode tokens: {} > {}, the context", deepest,
                                            o.forward.context_tokens)});

    if (o.cached_tokens >= o.prompt_tokens && o.cached_tokens > 0)
        return base::report("infer-worker",
                            {base::Errc::usage, fmt::format("--cached-tokens {}: not less than "
                                                            "--prompt-tokens {}",
                                                            o.cached_tokens, o.prompt_tokens)});

    const auto roofline = measure_roofline(o, forward);
    if (!roofline) return base::report("infer-worker", roofline.error());
    std::string out;
    base::JsonWriter json(out);
    json.object()
        .field("model", loaded->artifact->name())
        .field("hash", loaded->artifact->hash())
        .field("kernel", forward.kernel())
        .field("threads", forward.threads())
        .field("weight_bytes", forward.weight_bytes())
        .field("kv_type", o.forward.kv_type)
        .field("kv_bytes", forward.kv_bytes())
        .field("load_ms", loaded->load_ms)
        .field("read_gb_s", roofline->read_b_s * 1e-9)
        .field("int8_gops", roofline->int8_ops_s * 1e-9)
        .field("kv_token_bytes", roofline->kv_token_bytes)
        .field("prompt_tokens", o.prompt_tokens)
        .field("cached_tokens", o.cached_tokens)
        .field("decode_tokens", o.decode_tokens)
        .field("repeats", o.repeats)
        .field("speculate", speculate)
        .key("results")
        .array();
    if (!o.json)
        fmt::print(
            "{} {} · kernel {} · KV {} · {} threads · decode {} · median of {}\n"
            "measured: reads {:.1f} GB/s of {:.1f} MB of weights, int8 {:.0f} GOPS\n\n"
            "batch  prompt  prefill tok/s  of peak  decode tok/s  of roofline  step ms  first token ms\n",
            loaded->artifact->name(), loaded->artifact->hash().substr(0, 12), forward.kernel(),
            o.forward.kv_type, forward.threads(), o.decode_tokens, o.repeats, roofline->read_b_s * 1e-9,
            roofline->weight_bytes * 1e-6, roofline->int8_ops_s * 1e-9);
    std::vector<std::pair<uint32_t, uint32_t>> rows;
    for (const uint32_t depth : depths)
        for (const uint32_t batch : batches) rows.emplace_back(depth, batch);
    for (const auto& [prompt, batch] : rows) {
        o.prompt_tokens = prompt;
        const uint64_t depth = uint64_t{prompt} + o.decode_tokens + 1;
        const uint64_t blocks = (depth + engine::kBlockTokens - 1) / engine::kBlockTokens * batch;
        if (blocks > forward.kv_blocks())
            return base::report("infer-worker",
                                {base::Errc::usage,
                                 fmt::format("batch {} needs {} KV blocks > {}: raise --kv-blocks",
                                             batch, blocks, forward.kv_blocks())});
        std::vector<Sample> samples, without;
        for (uint32_t run = 0; run < o.repeats; ++run) {
            std::vector<Tokens> plain, answers;
            o.service.engine.speculate_max = 0;
            if (speculate > 0) {
                without.push_back(measure(forward, o, asked, batch, run * 1000 + batch, plain));
            }
            o.service.engine.speculate_max = speculate;
            samples.push_back(measure(forward, o, asked, batch, run * 1000 + batch, answers));
            if (speculate > 0 && plain != answers)
                return base::report("infer-worker", {base::Errc::internal,
                                                     "speculation has changed an answer"});
        }
        const Sample s = median(samples);
        // Every iteration reads the weights once, whatever the batch.
        const double weights_gb_s =
            s.step_ms == 0 ? 0 : static_cast<double>(forward.weight_bytes()) / s.step_ms * 1e-6;
        const double share = s.step_ms == 0 ? 0 : roofline->step_ms(o, forward, batch) / s.step_ms;
        const double prefill_share =
            roofline->int8_ops_s == 0 ? 0 : s.prefill_tok_s / roofline->prefill_tok_s();
        json.object()
            .field("batch", batch)
            .field("prompt_tokens", prompt)
            .field("decode_roofline_share", share)
            .field("prefill_peak_share", prefill_share)
            .field("prefill_tok_s", s.prefill_tok_s)
            .field("decode_tok_s", s.decode_tok_s)
            .field("step_ms", s.step_ms)
            .field("itl_p50_ms", s.itl_p50_ms)
            .field("itl_p99_ms", s.itl_p99_ms)
            .field("first_token_ms", s.first_ms)
            .field("weights_gb_s", weights_gb_s);
        double plain_tok_s = 0;
        if (speculate > 0) {
            plain_tok_s = median(without).decode_tok_s;
            json.field("plain_decode_tok_s", plain_tok_s)
                .field("drafted_tokens", s.drafted)
                .field("accepted_tokens", s.accepted);
        }
        json.end();
        if (!o.json) {
            fmt::print("{:5}  {:6}  {:13.1f}  {:6.1f}%  {:12.1f}  {:10.1f}%  {:7.2f}  {:14.1f}\n", batch,
                       prompt, s.prefill_tok_s, prefill_share * 100, s.decode_tok_s, share * 100,
                       s.step_ms, s.first_ms);
            if (speculate > 0)
                fmt::print("       without speculation {:.1f} tok/s; guessed {:.0f} tokens, right {:.0f}\n",
                           plain_tok_s, s.drafted, s.accepted);
            std::fflush(stdout);
        }
    }
    json.end().end();
    if (o.json) fmt::print("{}\n", out);
    return 0;
}

}  // namespace parley::infer_worker
