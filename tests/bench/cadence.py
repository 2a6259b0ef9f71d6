#!/usr/bin/env python3
"""Whether many streams keep their cadence through the chain: the gaps between tokens at the client, and what an event costs.

    PARLEY_BUILD=build tests/bench/cadence.py [--streams 512] [--interval-ms 20] [--seconds 20] [--short] [--check]

The simulated worker (no model: stated) gives every stream a token each interval, all in one iteration, as an engine's
batch does; loadgen reads all streams. First straight from the worker, which is what the worker and loadgen give by
themselves (its step is made shorter by what it needs itself, so that the interval is what its readers see), then through chatd, filter and router with keys, limits, counting, the filter's judgement, stamps and usage as
shipped. A whole processor core is needed for about every 15,000 events a second: others on the machine show at once.
CPU is that of each process (/proc), an event. Prints a table, --json one object. Exit status 1 with --check where the
p99 of the chain is over --most ms.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from front_overhead import BIN, cpu_s
from harness import Pipeline

STAGES = ("chatd", "safety-filter", "router", "infer-worker-0")


def load(arguments, streams, tokens, key):
    run = subprocess.run(
        [os.path.join(BIN, "loadgen"), "run", *arguments, "--model", "simulated", "--json", "--prompt", "Tell me a long story.", "--max-tokens", str(tokens),
         "--concurrency", str(streams), "--requests", str(streams), "--connect-timeout", "20s"],
        env=dict(os.environ, PARLEY_API_KEY=key), capture_output=True, text=True, timeout=600)
    report = json.loads(run.stdout.splitlines()[-1])
    if report["requests"]["failed"] or report["requests"]["completed"] != streams:
        raise RuntimeError(f"{report['requests']} {report['errors']} {report['http_status']}")
    return report


def worker_options(args, tokens):
    return [f"--simulate-step-us={1000 * args.step_ms}", "--simulate-row-us=0", "--simulate-context-us=0", "--simulate-prefill-us=0", "--simulate-tokens=0",
            f"--slots-max={args.streams}", f"--queue-max={2 * args.streams}", f"--kv-blocks={args.streams * (tokens // 16 + 8)}"]


def row(name, report, cpu):
    events = report["output_tokens"]
    itl = report["itl_ms"]
    return {"way": name, "itl_p50_ms": round(itl["p50"], 2), "itl_p99_ms": round(itl["p99"], 2), "itl_max_ms": round(itl["max"], 1), "gaps": itl["count"],
            "events_per_s": round(report["output_tokens_per_s"]), "cpu_us_an_event": {who: round(1e6 * s / events, 2) for who, s in cpu.items()}}


def straight(args, tokens):
    with tempfile.TemporaryDirectory(prefix="parley-cadence-") as folder:
        os.chmod(folder, 0o700)
        stage = f"ipc://{folder}/stage.sock"
        with open(os.path.join(folder, "worker.log"), "w", encoding="utf-8") as log:
            worker = subprocess.Popen([os.path.join(BIN, "infer-worker"), "serve", "--simulate", *worker_options(args, tokens), "--bind", stage],
                                      env=dict(os.environ, PARLEY_STATE=folder), stdout=log, stderr=log)
        try:
            time.sleep(1)
            before = cpu_s([worker.pid])
            report = load(["--endpoint", stage], args.streams, tokens, "none")
            return row("worker alone", report, {"infer-worker-0": cpu_s([worker.pid]) - before})
        finally:
            worker.terminate()
            worker.wait(20)


def chain(args, tokens):
    with Pipeline(PARLEY_SIMULATE=" ".join(worker_options(args, tokens)), PARLEY_MODEL="/none") as pipeline:
        pids = {name: pipeline.pid(name) for name in STAGES}
        before = {name: cpu_s([pid]) for name, pid in pids.items()}
        report = load(["--url", pipeline.info["url"]], args.streams, tokens, pipeline.key)
        return row("chatd, filter, router, worker", report, {name: cpu_s([pid]) - before[name] for name, pid in pids.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=512)
    parser.add_argument("--interval-ms", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--short", action="store_true", help="6 seconds")
    parser.add_argument("--most", type=float, default=22, help="ms that the p99 may have")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tokens = int((6 if args.short else args.seconds) * 1000 / args.interval_ms)
    args.step_ms = args.interval_ms
    first = straight(args, int(3000 / args.interval_ms))
    args.step_ms = max(args.interval_ms / 2, args.interval_ms - (first["itl_p50_ms"] - args.interval_ms))
    rows = [straight(args, tokens), chain(args, tokens)]
    if args.json:
        print(json.dumps({"streams": args.streams, "interval_ms": args.interval_ms, "tokens": tokens, "step_ms": round(args.step_ms, 2), "load": os.getloadavg()[0], "simulated": True, "ways": rows}))
    else:
        print(f"{args.streams} streams, a token each {args.interval_ms:g} ms (simulated worker), load average {os.getloadavg()[0]:.1f}")
        print(f"{'':30} gap p50 ms  p99 ms  max ms  events/s  CPU us an event")
        for r in rows:
            each = ", ".join(f"{who} {us}" for who, us in r["cpu_us_an_event"].items())
            print(f"{r['way']:30} {r['itl_p50_ms']:10.2f} {r['itl_p99_ms']:7.2f} {r['itl_max_ms']:7.1f} {r['events_per_s']:9}  {each}")
    return 1 if args.check and rows[-1]["itl_p99_ms"] > args.most else 0


if __name__ == "__main__":
    sys.exit(main())
