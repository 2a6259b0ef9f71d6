#include "options.hpp"

namespace parley::safety_filter {

base::Result<base::Parsed> parse(base::Cli& cli, Options& o, int argc, const char* const* argv) {
    auto policy = [&](base::Verb& verb) {
        verb.option("--policy", o.policy, "policy file (default: the shipped policy)")
            .env("PARLEY_POLICY");
    };
    auto serve = cli.verb("serve", "stand between askers and a router, and judge both ways");
    policy(serve);
    o.daemon.declare(serve);
    serve.option("--bind", o.bind,
                 "endpoint for askers (default: run/filter.sock in the state folder)");
    serve.option("--router", o.router,
                 "endpoint of the router (default: run/router.sock in the state folder)");
    serve.option("--name", o.name, "name said in HELLO");
    serve.option("--stamp-key", o.stamp_key,
                 "stamp key file, made where missing (default: run/stamp.key in the state folder)");
    serve.option("--judge-threads", o.workers, "threads that judge requests").range(1, 64);
    serve.option("--requests-max", o.requests_max, "requests live at once; more are refused (529)")
        .range(1, 1'000'000);
    serve.option("--cache-max", o.cache_max, "verdicts of texts that are remembered");
    serve.option("--curve-key", o.curve_key,
                 "file with the CURVE secret key; needed beyond loopback");
    serve.option("--curve-allow", o.curve_allow,
                 "file of CURVE public keys of askers that get in, one a line");
    serve.option("--router-curve-key", o.router_curve_key,
                 "public CURVE key of a router beyond loopback");

    auto run = cli.verb("run", "judge JSON Lines on stdin, or stand in a pipe with --filter");
    policy(run);
    run.flag("--filter", o.filter, "be a stage: pass what is allowed, answer what is not");
    run.flag("--output", o.output, "judge answers (stream events) instead of requests");
    run.option("FILE", o.file, "input, - is stdin");

    auto check = cli.verb("check", "explain the verdict on a text file");
    policy(check);
    check.option("--side", o.side, "whose text it is").choices({"input", "output"});
    check.flag("--json", o.json, "one JSON object");
    check.option("FILE", o.file, "text, - is stdin");

    auto eval = cli.verb("eval", "recall, false positives and AUROC by source");
    policy(eval);
    eval.option("--data", o.data, "labelled JSON Lines, file or folder; may be repeated")
        .required();
    eval.option("--fpr", o.fpr, "share of ordinary benign rows at which the threshold is set")
        .range(0, 1);
    eval.flag("--at-policy", o.at_policy, "count what the policy blocks, instead of a threshold");
    eval.flag("--leave-one-out", o.leave_one_out,
              "train without each source in turn, and score it");
    eval.option("--seed", o.seed, "seed, with --leave-one-out");
    eval.flag("--keep-share-alike", o.keep_share_alike,
              "train on rows under share-alike licences too");
    eval.flag("--json", o.json, "one JSON object a side");

    auto train = cli.verb("train", "make a weights file from labelled rows, bit for bit");
    train.option("--data", o.data, "labelled JSON Lines, file or folder; may be repeated")
        .required();
    train.option("--out", o.out, "weights file to write");
    train.option("--seed", o.seed, "seed of the order of rows");
    train.option("--epochs", o.epochs, "passes over the rows").range(1, 100);
    train.flag("--keep-share-alike", o.keep_share_alike, "use rows under share-alike licences too");
    return cli.parse(argc, argv);
}

}  // namespace parley::safety_filter
