#include "options.hpp"

namespace parley::infer_worker {
namespace {

void declare_template(base::Verb& verb, Options& o) {
    verb.option(
        "--chat-template", o.chat_template,
        "template family (chatml, gemma, llama3, zephyr; raw: none) where the file's own is not recognised");
}

void declare_model(base::Verb& verb, Options& o) {
    verb.option("--model", o.model, "GGUF file").env("PARLEY_MODEL");
    declare_template(verb, o);
}

void declare_compute(base::Verb& verb, Options& o) {
    verb.option("--threads", o.forward.threads, "compute threads; 0: one a core").range(0, 256);
    verb.option("--kernel", o.forward.kernel, "kernel path; empty: the best of this host")
        .env("PARLEY_KERNEL")
        .choices({"", "reference", "avx2", "avx512vnni", "amx"});
    verb.option("--kv-blocks", o.forward.kv_blocks, "KV blocks of 16 tokens").range(1, 1 << 22);
    verb.option("--kv-type", o.forward.kv_type,
                "how keys and values are kept: f16, or int8 in half the memory")
        .choices({"f16", "int8"});
    verb.option("--context", o.forward.context_tokens,
                "tokens of prompt and answer together; 0: the model's own window");
    verb.option("--rows-max", o.forward.rows_max, "most rows of one iteration").range(16, 8192);
}

void declare_speculation(base::Verb& verb, uint32_t& value) {
    verb.option("--speculate", value,
                "tokens guessed ahead for a request in one iteration, at most; 0: off")
        .range(0, 15);
}

void declare_draft(base::Verb& verb, Options& o) {
    verb.option("--draft", o.draft,
                "GGUF file of a smaller model with the same tokenizer, that guesses for --speculate");
}

void declare_engine(base::Verb& verb, Options& o) {
    declare_compute(verb, o);
    verb.option("--prefix-cache", o.service.engine.prefix_blocks,
                "KV blocks kept at most for prompts that begin alike; 0: off")
        .range(0, 1 << 22);
    declare_speculation(verb, o.service.engine.speculate_max);
    declare_draft(verb, o);
    verb.option("--slots-max", o.service.engine.slots_max, "requests that are computed together")
        .range(1, 8192);
}

void declare_simulation(base::Verb& verb, Options& o) {
    simulated::Cost& cost = o.simulated.cost;
    verb.flag("--simulate", o.simulate,
              "no model: synthetic answers, at the pace of a cost model (named 'simulated')");
    verb.option("--simulate-tokens", o.simulated.answer_tokens_mean,
                "mean tokens of a simulated answer that ends by itself; 0: max_tokens ends it")
        .range(0, 1'000'000);
    verb.option("--simulate-speed", cost.speed, "how many times as fast as the simulated costs")
        .range(0.001, 1e6);
    verb.option("--simulate-step-us", cost.step_us, "simulated cost of an iteration, microseconds")
        .range(0, 1e9);
    verb.option("--simulate-row-us", cost.row_us,
                "more for each request that decodes in it, microseconds")
        .range(0, 1e9);
    verb.option("--simulate-context-us", cost.context_us,
                "more for each 1,000 tokens before a decoded one, microseconds")
        .range(0, 1e9);
    verb.option("--simulate-fail-every", o.simulate_fail_every,
                "serve: every n-th request ends with api_error; 0: none");
    verb.option("--simulate-prefill-us", cost.prefill_us,
                "more for each token of a prompt, microseconds")
        .range(0, 1e9);
}

}  // namespace

base::Result<Options> parse_options(int argc, const char* const* argv) {
    Options o;
    o.service.engine.slots_max = 16;
    o.service.engine.speculate_max = 8;
    o.service.engine.itl_target_ms = 200;
    o.service.engine.first_tokens = 16;
    o.service.engine.begin_lag_ms = 250;
    o.service.engine.batch_share = 0.05;
    o.service.engine.prefill_slowdown = 1.7;
    o.service.engine.prefix_blocks = 1 << 22;  // as many as there are
    base::Cli cli("infer-worker", "run language models and answer generation requests");

    auto serve = cli.verb("serve", "join a router, or bind an own front, and answer");
    o.daemon.declare(serve);
    serve
        .option("--model", o.models,
                "GGUF file, or FILE:name=NAME:kv-blocks=N:slots=N; once for each model")
        .env("PARLEY_MODEL");
    declare_template(serve, o);
    declare_engine(serve, o);
    declare_simulation(serve, o);
    serve.option("--name", o.name, "name in HELLO, logs and status");
    serve.option("--model-name", o.model_name,
                 "what clients call the model (default: the file's name without quantisation)");
    serve.option("--zone", o.zone, "placement hint in HELLO");
    serve.option(
        "--router", o.router,
        "endpoint of a router's worker side (default: run/workers.sock in the state folder)");
    serve.option("--bind", o.bind, "bind this endpoint for askers instead of joining a router");
    serve
        .option("--queue-max", o.service.engine.queue_max,
                "requests that wait for a slot; one more is refused (529)")
        .range(0, 65'536);
    serve.option("--grammars-kept", o.service.grammars_kept, "compiled JSON Schemas kept for answers held to one")
        .range(1, 4096);
    serve.duration("--prefill-target", o.service.engine.prefill_target_ms,
                   "how long a prompt's chunk may hold up those that decode");
    serve
        .option("--prefill-slowdown", o.service.engine.prefill_slowdown,
                "nor longer than so many times those that decode alone; 0: as long as --prefill-target")
        .range(0, 1000);
    serve.duration("--itl-target", o.service.engine.itl_target_ms,
                   "how long the rows of those that decode may take: beyond it some rest; 0: no target");
    serve.duration("--rest-max", o.service.engine.rest_max_ms,
                   "who has rested for so long decodes before the others");
    serve.duration("--flow-lag", o.service.engine.flow_lag_ms,
                   "compute time that a flow may be behind or ahead of the others by the router's word");
    serve.option("--first-tokens", o.service.engine.first_tokens,
                 "of an answer that begins: flows with four times as much running wait for them; 0: none")
        .range(0, 4096);
    serve.duration("--begin-lag", o.service.engine.begin_lag_ms,
                   "compute time that a flow may be ahead of the others and still begin before them");
    serve
        .option("--batch-share", o.service.engine.batch_share,
                "of the time while others compute, what batch takes of it; 1: as many rows as are free")
        .range(0, 1);
    serve.option("--nice", o.nice, "nice value of the compute threads").range(0, 19);
    serve.option("--curve-key", o.curve_key, "file with the CURVE secret key, for tcp");
    serve.option("--curve-server", o.curve_server, "the router's CURVE public key (with --router)");
    serve.option("--curve-allow", o.curve_allow,
                 "file of CURVE public keys that get in, one a line (with --bind)");

    auto run = cli.verb("run", "filter: requests on standard input to answers on standard output");
    declare_model(run, o);
    declare_engine(run, o);
    declare_simulation(run, o);
    run.option("--input", o.input, "file of requests, one a line; - is standard input");
    run.flag("--text", o.text, "print the answers' text only");
    run.option("--seed", o.seed, "sampler's seed of requests that name none; -1: drawn for each");

    auto bench = cli.verb("bench", "measure prefill, and decode in several batch sizes");
    declare_model(bench, o);
    declare_compute(bench, o);
    bench.option("--prompt-tokens", o.prompt_tokens, "tokens of each prompt").range(1, 1 << 20);
    bench.option("--depth", o.depths, "prompts of several lengths, instead of --prompt-tokens");
    bench
        .option("--cached-tokens", o.cached_tokens,
                "tokens at the prompts' beginning that are in the prefix cache already")
        .range(0, 1 << 20);
    bench.option("--decode-tokens", o.decode_tokens, "tokens decoded after it").range(1, 1 << 20);
    bench.option("--batch", o.batches, "batch sizes");
    bench.option("--repeats", o.repeats, "runs of each; the median counts").range(1, 100);
    bench.option("--requests", o.requests,
                 "file of Messages API bodies, one a line, instead of random prompts");
    declare_speculation(bench, o.compared_speculation);
    declare_draft(bench, o);
    bench.option("--perplexity", o.perplexity,
                 "measure no speed but the perplexity of this file of text");
    bench.option("--window", o.perplexity_window, "tokens of a window of perplexity; half are scored")
        .range(4, 1 << 24);
    bench.flag("--json", o.json, "one JSON object");

    const auto running = [&o](base::Verb& verb) {
        verb.option("--name", o.name, "name of the running worker");
        verb.option("--state", o.daemon.state, "state folder (default: where PARLEY_STATE says)")
            .env("PARLEY_STATE");
    };
    auto load = cli.verb("load", "load a model into a running worker");
    running(load);
    load.option("FILE", o.file, "GGUF file").required();
    load.option("--model-name", o.model_name,
                "what clients call the model (default: the file's name without quantisation)");
    load.option("--kv-blocks", o.load_kv_blocks,
                "KV blocks of 16 tokens of this model; 0: as the worker was told")
        .range(0, 1 << 22);
    auto unload = cli.verb("unload", "let a running worker finish with a model, and free it");
    running(unload);
    unload.option("MODEL", o.unload_model, "name or hash").required();
    auto models = cli.verb("models", "show the models of a running worker");
    running(models);

    auto info = cli.verb("info", "show what a GGUF file holds");
    declare_model(info, o);
    info.flag("--json", o.json, "one JSON object");

    auto tokenize = cli.verb("tokenize", "text to token ids");
    declare_model(tokenize, o);
    tokenize.option("TEXT", o.words, "the text, instead of --input");
    tokenize.option("--input", o.input, "file of text; - is standard input");
    tokenize.flag("--special", o.special, "spellings of control tokens are control tokens");
    tokenize.flag("--decode", o.decode, "the input is token ids, the output their text");
    tokenize.flag("--messages", o.messages, "the input is a Messages API body: its whole prompt");
    tokenize.flag("--json", o.json, "one JSON object");

    auto parsed = cli.parse(argc, argv);
    if (!parsed) return base::fail(parsed.error());
    o.parsed = std::move(*parsed);
    return o;
}

}  // namespace parley::infer_worker
