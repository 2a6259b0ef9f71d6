#include "options.hpp"

namespace parley::router {

namespace {

// What decides who goes next: the same in `serve` and in `simulate`.
void declare_fair(base::Verb& verb, Options& o) {
    auto& s = o.router.scheduler;
    verb.option("--queue-max", s.waiting_max, "requests that wait at most; more are refused (529)");
    verb.option("--flow-queue-max", s.flow_waiting_max,
                "requests of one organization that wait at most; more are refused (429)");
    verb.option("--flow-queue-seconds-max", s.flow_waiting_s_max,
                "predicted compute-seconds of one organization that wait at most");
    verb.option("--flow-running-max", s.fair.running_max,
                "requests of one organization that run at once; 0: no cap");
    verb.option("--flow-seconds-max", s.fair.flight_s_max,
                "predicted compute-seconds of one organization in flight; 0: no cap");
    verb.option("--quantum", s.fair.quantum_s,
                "compute-seconds by which a cached prefix may go before the fair order");
    verb.option("--retry-share", s.admission.retry_share,
                "of the requests that start, how many may start again unseen");
    verb.option("--shed-max", s.admission.level_max,
                "how far load is shed: 0 not, 1 batch, each more a tenth of the organizations")
        .range(0, dispatch::Admission::kLevelMax);
    verb.option("--calm-windows", s.admission.calm_windows,
                "windows on end without a standing queue until one step is taken back")
        .range(1, 1000);
    verb.option(
        "--brownout-batch-tokens", s.admission.brownout_batch_tokens,
        "max_tokens of batch at most while it is busy, before anything is refused; 0: no cut");
    verb.option(
            "--late-margin", s.admission.late_margin,
            "of the time to a request's deadline, what its predicted first event must leave free")
        .range(0, 0.9);
    verb.option("--standing-share", s.admission.standing_share,
                "of its time, waited even by the luckiest request: above it, load is shed")
        .range(0, 1e9);
}

void declare_breaker(base::Verb& verb, Options& o) {
    auto& b = o.router.breaker;
    verb.option("--breaker-errors", b.errors_min,
                "failures of a version on one worker that stop requests of it there; 0: never");
    verb.option("--breaker-share", b.share, "of the ends there, that have to be failures")
        .range(0.01, 1);
    verb.duration("--breaker-window", b.window_ms, "in which they are counted");
    verb.duration("--breaker-open", b.open_ms, "until requests probe it; doubled while they fail");
    verb.duration("--breaker-open-most", b.open_most_ms, "the bound of that");
    verb.option("--breaker-probes", b.probes, "requests that have to end well").range(1, 1000);
}

void declare_gates(base::Verb& verb, Options& o) {
    rollout::Gates& g = o.router.gates;
    verb.option(
        "--rollout-stages", o.router.stages,
        "shares of a rollout in percent, the last 100; 'shadow' before them copies requests, "
        "'person:' before one waits for promote");
    verb.option("--rollout-requests-min", g.requests_min,
                "requests of the new version in a stage before the next");
    verb.duration("--rollout-min-time", g.min_ms, "time in a stage before the next");
    verb.option("--rollout-evidence", g.act, "E from which a rollout is rolled back")
        .range(2, 1e12);
    verb.option("--rollout-error-points", g.error_points,
                "error rate beyond the stable version's that counts")
        .range(0, 1);
    verb.option("--rollout-ttft-ratio", g.ttft_ratio,
                "p95 of the time to the first token over the stable version's that counts")
        .range(1, 1000);
    verb.option("--rollout-itl-ratio", g.itl_ratio, "the same of the time between tokens")
        .range(1, 1000);
    verb.option("--rollout-filter-high", g.filter_high,
                "answers stopped by filters over the stable version's that should be found")
        .range(1, 1000);
    verb.option("--rollout-filter-low", g.filter_low, "the same, too few of them").range(0, 1);
    verb.option("--rollout-crashes-max", g.crashes_max,
                "lost workers of the new version that roll it back")
        .range(1, 1000);
    verb.option("--rollout-baseline", g.baseline,
                "requests of the stable version that tell what is late")
        .range(1, 1'000'000);
    verb.option("--rollout-shadow-share", g.shadow_share,
                "of the requests, copied in the shadow stage")
        .range(0.0001, 0.9999);
}

}  // namespace

base::Result<Options> parse_options(int argc, const char* const* argv) {
    Options o;
    base::Cli cli("router", "registry, queue and dispatch between safety-filter and infer-worker");
    auto serve = cli.verb("serve", "take requests from filters and give them to workers");
    o.daemon.declare(serve);
    serve.option("--bind", o.bind,
                 "endpoint for askers (default: run/router.sock in the state folder)");
    serve.option("--workers-bind", o.workers_bind,
                 "endpoint for workers (default: run/workers.sock)");
    serve.option("--curve-key", o.curve_key,
                 "file with the CURVE secret key; needed beyond loopback");
    serve.option("--curve-allow", o.curve_allow,
                 "file of CURVE public keys that get in, one a line");
    serve.flag("--standby", o.standby,
               "where another router serves on this state, wait for its end and take over");
    serve.duration(
        "--hung-after", o.hung_ms,
        "standing by: kill the one that serves when it has stood still so long; 0: never");
    serve.size("--queue-bytes-max", o.router.bytes_max, "bytes of requests that wait at most");
    declare_fair(serve, o);
    declare_gates(serve, o);
    declare_breaker(serve, o);
    serve.duration("--ttft", o.router.ttft_ms,
                   "how long a request waits for a worker where it names no bound");
    serve.duration("--stall", o.router.stall_ms, "the same of a stream that lost its worker");
    serve
        .option("--moves-max", o.router.moves_max,
                "times that one request goes on with another worker")
        .range(0, 255);
    serve.size("--kept-bytes-max", o.router.kept_bytes_max,
               "bytes of running requests kept to hand them over");
    auto status = cli.verb("status", "show queue and workers of the running router");
    status.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
    status.option("--bind", o.bind, "endpoint of the router");
    status.flag("--json", o.json, "one JSON object");
    status.flag("--watch", o.watch, "again every second");
    auto model = cli.verb("model", "the registry of model versions");
    auto models = model.verb("list", "list the versions");
    models.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
    models.flag("--json", o.json, "one JSON object a line");
    auto alias = cli.verb("alias", "names that point at models");
    auto aliases = alias.verb("list", "list the aliases");
    aliases.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
    aliases.flag("--json", o.json, "one JSON object a line");
    auto set = alias.verb("set", "point an alias at a model, effective within a second");
    set.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
    set.option("NAME", o.name, "the alias").required();
    set.option("MODEL", o.target, "a model's name or hash, or another alias; '' removes the alias")
        .required();
    set.option("--small", o.small, "a model for requests that are small; '' for none");
    set.option("--small-prompt", o.small_prompt_tokens,
               "tokens of a small request's prompt at most");
    set.option("--small-answer", o.small_max_tokens, "max_tokens of a small request at most");
    set.option("--say", o.say, "the answer's model: 'alias' or the chosen 'model'")
        .choices({"alias", "model"});
    set.option("--why", o.why, "kept in the alias's history");
    auto back = alias.verb("rollback", "point an alias at what it pointed at before");
    back.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
    back.option("NAME", o.name, "the alias").required();
    back.option("--why", o.why, "kept in the alias's history");
    auto key = cli.verb("key", "CURVE keys, for workers and filters on other machines");
    auto create = key.verb("create", "write a secret key, and the public one beside it (.pub)");
    create.option("FILE", o.key_file, "where the secret key goes; none is written over").required();
    create.flag("--json", o.json, "one JSON object");
    auto show = key.verb("show", "print the public key of a secret one");
    show.option("FILE", o.key_file, "the secret key's file").required();
    show.flag("--json", o.json, "one JSON object");
    auto rollout = cli.verb("rollout", "one version takes the place of another, by stages");
    const auto of_router = [&o](base::Verb& verb) {
        verb.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
        verb.option("--bind", o.bind, "endpoint of the router");
    };
    auto start = rollout.verb("start", "begin, after golden prompts");
    of_router(start);
    start.option("ALIAS", o.name, "the name that clients use").required();
    start.option("MODEL", o.target, "the new version: name or hash").required();
    start.option("--stages", o.stages, "instead of the router's --rollout-stages");
    start.option("--golden", o.golden, "JSON Lines of prompt, expect, max_tokens (32)");
    start.option("--why", o.why, "kept in its history");
    for (const auto& [name, help] : {std::pair{"promote", "go to the next stage now"},
                                     std::pair{"abort", "back to the stable version"}}) {
        auto verb = rollout.verb(name, help);
        of_router(verb);
        verb.option("ALIAS", o.name, "the name that clients use").required();
        verb.option("--why", o.why, "kept in its history");
    }
    for (const auto& [name, help] : {std::pair{"status", "where rollouts stand"},
                                     std::pair{"history", "every step, who and why"}}) {
        auto verb = rollout.verb(name, help);
        of_router(verb);
        verb.option("ALIAS", o.name, "only this one");
        verb.flag("--json", o.json, "one JSON object a line");
    }
    auto simulate = cli.verb("simulate", "the scheduler under a virtual clock, from a scenario");
    simulate.option("SCENARIO", o.scenario, "JSON Lines; '-' is stdin");
    simulate
        .option("--rollouts", o.rollouts,
                "instead of a scenario: so many made-up rollouts of each kind, good and bad")
        .range(0, 1'000'000);
    simulate.option("--trace", o.trace, "JSON Lines of requests, beside the scenario");
    simulate.option("--seed", o.seed, "of the random numbers; 0: the scenario's");
    simulate.option("--seconds", o.seconds, "how long; 0: the scenario's").range(0, 86'400);
    simulate.option("--load", o.load, "times the rates of all open loops").range(0.001, 10'000);
    simulate.option("--svg", o.svg, "file to draw into");
    simulate.flag("--no-admission", o.no_predict, "refuse nothing for being late or shed");
    simulate.flag("--json", o.json, "one JSON object");
    declare_fair(simulate, o);
    auto parsed = cli.parse(argc, argv);
    if (!parsed) return base::fail(parsed.error());
    o.parsed = std::move(*parsed);
    return o;
}

}  // namespace parley::router
