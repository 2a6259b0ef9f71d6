#!/usr/bin/env python3
"""What a reader feels while long prompts come in: the gaps between tokens of running streams, without and beside them.

One worker, N streams that decode all the time. In each round the gaps are taken first without any prompt, then while
prompts of P tokens arrive one behind the other; both in one process, so that what else the machine does falls on both.
Gaps are between the worker's own stamps of two events of a stream. The medians of the rounds count.

    tests/bench/itl_beside_prefill.py --worker build/bin/infer-worker --model m.gguf

Prints a table, or one JSON object with --json. Exit status: 0; 1 when the ratio of the p99 exceeds --most.
"""
import argparse
import json
import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from worker_link import Worker  # noqa: E402

WORDS = ("river stone lamp garden winter paper silver window morning bread letter road horse market "
         "cloud music engine shadow island copper").split()


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


class Bench:
    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        arguments = ["--model", args.model, "--slots-max", str(args.streams + 1), "--prefix-cache", "0",
                     "--kv-blocks", str((args.streams * 2048 + args.prompt_tokens * 2) // 16), "--speculate", "0"]
        self.worker = Worker(args.worker, *arguments, *args.worker_option)
        self.asked = 0
        self.last = {}      # stream: stamp of its last event
        self.prompt = None  # id of the long prompt that runs, and when it was asked
        self.prompt_s = []

    def ask(self, kind, text, max_tokens, **members):
        self.asked += 1
        name = f"{kind}_{self.asked}"
        self.worker.ask(name, {"model": "m", "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}],
                               **members}, seed=self.asked)
        return name

    def stream(self):
        topic = self.random.choice(WORDS)
        self.last[self.ask("stream", f"Write a very long story about a {topic}.", 1000, temperature=1)] = None

    def long_prompt(self):
        text = " ".join(self.random.choices(WORDS, k=self.args.prompt_tokens - 40))
        self.prompt = (self.ask("prompt", text, 1, temperature=0), time.monotonic())

    def run(self, seconds, beside):
        """The gaps of a while, in ms."""
        gaps = []
        for stream in self.last:
            self.last[stream] = None
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.prompt:
            if self.prompt and time.monotonic() >= end:
                self.worker.cancel(self.prompt[0])  # what it has shown is enough
            while len(self.last) < self.args.streams:
                self.stream()
            if beside and not self.prompt and time.monotonic() < end:
                self.long_prompt()
            try:
                verb, name, meta, _ = self.worker.next(time.monotonic() + 20)
            except TimeoutError:
                sys.exit("the worker said nothing for 20 s")
            if verb == "EVENT" and name in self.last and meta.get("ids"):
                if self.last[name]:
                    gaps.append((meta["stamp_ns"] - self.last[name]) / 1e6)
                self.last[name] = meta["stamp_ns"]
            elif verb == "END":
                if meta["status"] not in ("ok", "cancelled"):
                    sys.exit(f"{name}: {meta}")
                if self.prompt and name == self.prompt[0]:
                    if meta["status"] == "ok":
                        self.prompt_s.append(time.monotonic() - self.prompt[1])
                    self.prompt = None
                else:
                    del self.last[name]
        return gaps


def main():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="build/bin/infer-worker")
    parser.add_argument("--model", default=os.environ.get("PARLEY_MODEL") or os.path.join(
        home, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4, help="of each half of a round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker-option", action="append", default=[], help="one more argument of the worker")
    parser.add_argument("--most", type=float, default=0, help="the p99 ratio that is allowed; 0: any")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    bench = Bench(args)
    rounds = []
    with bench.worker:
        bench.run(1.5, False)  # all streams decode, and the cost model has seen some
        bench.run(0.5, True)
        bench.prompt_s.clear()
        for _ in range(args.rounds):
            row = {}
            for name, beside in (("alone", False), ("beside", True)):
                gaps = bench.run(args.seconds, beside)
                row[name] = {"p50": quantile(gaps, 0.5), "p99": quantile(gaps, 0.99), "max": max(gaps), "gaps": len(gaps)}
            rounds.append(row)
    middle = {f"{half}_{q}": statistics.median(r[half][q] for r in rounds)
              for half in ("alone", "beside") for q in ("p50", "p99", "max")}
    ratio = statistics.median(r["beside"]["p99"] / r["alone"]["p99"] for r in rounds)
    result = {"streams": args.streams, "prompt_tokens": args.prompt_tokens, "rounds": args.rounds,
              "prompts": len(bench.prompt_s), "prompt_s": statistics.median(bench.prompt_s) if bench.prompt_s else None, **middle,
              "p50_ratio": statistics.median(r["beside"]["p50"] / r["alone"]["p50"] for r in rounds), "p99_ratio": ratio}
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.streams} streams, prompts of {result['prompt_tokens']} tokens, medians of {args.rounds} rounds, ms between tokens")
        print(f"{'':8}{'p50':>8}{'p99':>8}{'max':>8}")
        for half in ("alone", "beside"):
            print(f"{half:8}" + "".join(f"{middle[f'{half}_{q}']:8.1f}" for q in ("p50", "p99", "max")))
        took = f"; a prompt took {result['prompt_s']:.2f} s beside them" if bench.prompt_s else ""
        print(f"p50 ratio {result['p50_ratio']:.2f}, p99 ratio {ratio:.2f}{took}")
    return 1 if args.most and ratio > args.most else 0


if __name__ == "__main__":
    sys.exit(main())
