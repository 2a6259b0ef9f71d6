#!/usr/bin/env python3
"""infer-worker beside llama.cpp: the same file, threads, prompts' and answers' lengths, on this machine.

All sides run in turns, a fresh process each time, so that what else the machine does falls on all; the
ratio of the medians is the result, not the absolute figures. The anchors:

    native  llama.cpp built for this host (llamacpp_native.py), with flash attention and without: the
            better median of each row counts; the first build takes some minutes
    wheel   the generic wheel xllamacpp (llamacpp_wheel.py): rows of several streams only

    tests/bench/engine_vs_llamacpp.py --worker build/bin/infer-worker --anchor native wheel --rounds 7

Rows: decode after 32 and after 1,024 tokens, a prompt of 512, several streams at once (the anchor's time
between tokens is its mean, ours the 99th percentile), 16 new tokens behind 1,024 in the cache, perplexity of a
text with --text. Prints a table, or one JSON object with --json. Exit status: 0; 1 when --check finds a row below
its bar; 69 when no anchor can be had (SKIPPED); 70 when a side fails.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

from llamacpp_native import Native, Unavailable
from llamacpp_wheel import Wheel

FEATURES = ["avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "amx_int8"]


class Ours:
    def __init__(self, args):
        self.args, self.kernel = args, ""

    def bench(self, prompt, decode, streams=1, cached=0):
        blocks = ((prompt + decode) // 16 + 2) * streams
        out = subprocess.run(
            [self.args.worker, "bench", "--json", "--model", self.args.model, "--threads", str(self.args.threads),
             "--batch", str(streams), "--repeats", "1", "--kv-blocks", str(blocks + 80),
             "--prompt-tokens", str(prompt), "--cached-tokens", str(cached), "--decode-tokens", str(decode),
             *self.args.worker_option],
            stdout=subprocess.PIPE, check=True, timeout=self.args.timeout)
        report = json.loads(out.stdout)
        self.kernel = report["kernel"]
        return report["results"][0]


def rows(args, ours):
    """name, unit, bar (None: reported only), higher is better, ours(), native(flash), wheel()."""
    m, t = args.model, args.threads

    def native_decode(depth, tokens):
        return lambda n, flash: n.rate(m, t, flash, "-p", "0", "-n", str(tokens), "-d", str(depth))

    yield ("decode after 32", "tok/s", 1.6, True, lambda: ours.bench(32, 128)["decode_tok_s"],
           native_decode(32, 128), None)
    yield ("decode after 1024", "tok/s", 2.5, True, lambda: ours.bench(1024, 64)["decode_tok_s"],
           native_decode(1024, 64), None)
    yield ("prompt 512", "tok/s", None, True, lambda: ours.bench(512, 1)["prefill_tok_s"],
           lambda n, flash: n.rate(m, t, flash, "-p", "512", "-n", "0"), None)
    for streams in args.streams:
        bar = {16: 4, 32: 6}.get(streams)
        last = {}

        def mine(streams=streams, last=last):
            last["row"] = ours.bench(128, 64, streams)
            return last["row"]["decode_tok_s"]

        def theirs(n, flash, streams=streams, last=last):
            last[flash] = n.batched(m, t, flash, 128, 64, streams)
            return last[flash]["decode"]

        def wheel(w, streams=streams, last=last):
            last["wheel"] = w.batched(m, t, 128, 64, streams)
            return last["wheel"]["decode"]

        yield f"{streams} streams", "tok/s", bar, True, mine, theirs, wheel
        yield (f"{streams} streams, between tokens", "ms", 0.3 if streams == 16 else None, False,
               lambda last=last: last["row"]["itl_p99_ms"], lambda n, flash, last=last: last[flash]["step_ms"],
               lambda w, last=last: last["wheel"]["step_ms"])
    yield ("1024 cached, 16 new", "ms", 0.25, False,
           lambda: ours.bench(1040, 1, cached=1024)["first_token_ms"],
           lambda n, flash: 16e3 / n.rate(m, t, flash, "-p", "16", "-n", "0", "-d", "1024"), None)


def measure(args, ours, native, wheel):
    samples = {}
    for turn in range(args.rounds):
        for name, unit, bar, higher, mine, theirs, generic in rows(args, ours):
            s = samples.setdefault(name, {"unit": unit, "bar": bar, "higher": higher, "ours": [], "plain": [],
                                          "flash": [], "wheel": []})
            s["ours"].append(mine())
            if native:
                s["plain"].append(theirs(native, False))
                s["flash"].append(theirs(native, True))
            if wheel and generic:
                s["wheel"].append(generic(wheel))
        if sys.stderr.isatty():
            print(f"\rround {turn + 1} of {args.rounds}", end="", file=sys.stderr)
    return samples


def judge(samples):
    table = []
    for name, s in samples.items():
        best = max if s["higher"] else min
        medians = {side: statistics.median(s[side]) for side in ("ours", "plain", "flash", "wheel") if s[side]}
        row = {"row": name, "unit": s["unit"], "bar": s["bar"], "rounds": len(s["ours"]),
               **{side: round(value, 2) for side, value in medians.items()}}
        anchors = [medians[side] for side in ("plain", "flash") if side in medians]
        if anchors:
            row["ratio"] = round(medians["ours"] / best(anchors), 3)
            if s["bar"] is not None:
                row["reached"] = row["ratio"] >= s["bar"] if s["higher"] else row["ratio"] <= s["bar"]
        table.append(row)
    return table


def main():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="build/bin/infer-worker")
    parser.add_argument("--worker-option", action="append", default=[], help="one more for bench, as --kv-type=int8")
    parser.add_argument("--model", default=os.environ.get("PARLEY_MODEL") or os.path.join(
        home, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--anchor", nargs="+", choices=["native", "wheel"], default=["native"])
    parser.add_argument("--folder", default="", help="where the anchors are kept; default: beside the worker's bin")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, nargs="*", default=[16, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--text", default="", help="a text whose perplexity is computed by ours and native")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window of perplexity")
    parser.add_argument("--timeout", type=int, default=600, help="seconds for one measurement")
    parser.add_argument("--check", action="store_true", help="exit 1 when a row is below its bar")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    folder = args.folder or os.path.dirname(os.path.dirname(os.path.abspath(args.worker)))
    native = wheel = None
    for anchor in args.anchor:
        try:
            if anchor == "native":
                native = Native.build(os.path.join(folder, "llamacpp-native"))
            else:
                wheel = Wheel.install(os.path.join(folder, "llamacpp-venv"))
        except Unavailable as error:
            print(f"SKIPPED: {anchor}: {error}", file=sys.stderr)
    if not native and not wheel:
        return 69
    ours = Ours(args)
    try:
        table = judge(measure(args, ours, native, wheel))
        if args.text and native:
            out = subprocess.run([args.worker, "bench", "--json", "--model", args.model, "--perplexity", args.text,
                                  "--window", str(args.window)], stdout=subprocess.PIPE, check=True,
                                 timeout=args.timeout)
            mine = json.loads(out.stdout)["perplexity"]
            theirs = native.perplexity(args.model, args.threads, args.text, args.window)
            table.append({"row": "perplexity", "unit": "", "bar": 1.005, "rounds": 1, "ours": round(mine, 4),
                          "plain": round(theirs, 4), "ratio": round(mine / theirs, 4),
                          "reached": mine / theirs <= 1.005})
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
        print(f"engine_vs_llamacpp: {error}", file=sys.stderr)
        return 70

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    about = {"kernel": ours.kernel, "threads": args.threads, "rounds": args.rounds,
             "cpu": " ".join(f for f in FEATURES if f in flags),
             **({"native": native.version} if native else {}), **({"wheel": wheel.version} if wheel else {}),
             "load": round(os.getloadavg()[0], 1)}
    if args.json:
        print(json.dumps({**about, "results": table}))
    else:
        print(" · ".join(f"{key} {value}" for key, value in about.items()))
        print(f"{'':28} {'ours':>9} {'native':>9} {'flash':>9} {'wheel':>9}  ratio  bar")
        for r in table:
            cells = " ".join(f"{r[side]:9.2f}" if side in r else f"{'-':>9}"
                             for side in ("ours", "plain", "flash", "wheel"))
            print(f"{r['row'] + ', ' + r['unit']:28} {cells}  {r.get('ratio', 0):5.2f}  "
                  f"{r['bar'] if r['bar'] is not None else '-'}")
    return 1 if args.check and not all(r.get("reached", True) for r in table) else 0


if __name__ == "__main__":
    sys.exit(main())
