#!/usr/bin/env python3
"""How decoding fares beside other processes that want the same cores: parley and llama.cpp built for the host.

In each round both sides decode alone and beside one busy process for every core, in turns. Half the cores are a
fair share: 0.5 of the speed alone. What falls far below waits for threads that are not running.

    tests/bench/beside_busy.py [--worker build/bin/infer-worker] [--rounds 7] [--folder build]
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

from llamacpp_native import Native, Unavailable

HOME = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def parley(args):
    done = subprocess.run([args.worker, "bench", "--model", args.model, "--prompt-tokens", "32", "--decode-tokens", str(args.tokens), "--batch", "1",
                           "--repeats", "1", "--threads", str(args.threads), "--json"], stdout=subprocess.PIPE, check=True, timeout=600)
    return json.loads(done.stdout)["results"][0]["decode_tok_s"]


class Busy:
    """One process that never rests for each core, while the block lasts."""

    def __enter__(self):
        self.processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="build/bin/infer-worker")
    parser.add_argument("--model", default=os.environ.get("PARLEY_MODEL") or os.path.join(HOME, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", default="build", help="where llama.cpp is built and kept")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    sides = {"parley": lambda: parley(args)}
    try:
        native = Native.build(os.path.join(args.folder, "llamacpp-native"))
        sides["llama.cpp " + native.version] = lambda: native.rate(args.model, args.threads, True, "-p", "0", "-n", str(args.tokens))
    except Unavailable as why:
        print(f"SKIPPED llama.cpp: {why}", file=sys.stderr)
    rows = {name: {"alone": [], "beside": []} for name in sides}
    for _ in range(args.rounds):
        for name, rate in sides.items():
            rows[name]["alone"].append(rate())
        with Busy():
            for name, rate in sides.items():
                rows[name]["beside"].append(rate())
    out = {}
    for name, row in rows.items():
        out[name] = {half: statistics.median(rates) for half, rates in row.items()}
        out[name]["share"] = statistics.median(b / a for a, b in zip(row["alone"], row["beside"]))
    if args.json:
        print(json.dumps(out))
        return 0
    print(f"decoding, {args.threads} threads, beside {os.cpu_count()} busy processes; medians of {args.rounds} rounds in turns, tokens a second")
    print(f"{'':22}{'alone':>9}{'beside':>9}{'share':>8}")
    for name, row in out.items():
        print(f"{name:22}{row['alone']:9.0f}{row['beside']:9.0f}{row['share']:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
