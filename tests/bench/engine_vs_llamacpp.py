#!/usr/bin/env python3
"""infer-worker beside llama.cpp: the same file, threads, prompts' and answers' lengths, on this machine.

Both sides run in turns, a fresh process each time, so that what else the machine does falls on both; the
ratio of the medians is the result, not the absolute figures. llama.cpp comes as the xllamacpp wheel, put
into a virtual environment under the build folder (PyPI is asked only if it is not there yet).

    tests/bench/engine_vs_llamacpp.py --worker build/bin/infer-worker --model m.gguf

Prints a table, or one JSON object with --json. Exit status: 0; 1 when --min-ratio is not reached; 69
when llama.cpp cannot be had (SKIPPED); 70 when a side fails.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import venv

HERE = os.path.abspath(__file__)
WHEEL = "xllamacpp"


def prompt(length, salt):
    """Token ids of no meaning, different for each sequence (Knuth's MMIX generator)."""
    state, ids = (salt + 1) * 0x9E3779B97F4A7C15 % 2**64, []
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append(1000 + (state >> 33) % 40000)
    return ids


def llama_child(args):
    """In the virtual environment: one server, all streams at once, its own timings."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.n_parallel = args.streams
    params.n_ctx = args.streams * (args.prompt_tokens + args.decode_tokens + 32)
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.warmup = True
    server = xllamacpp.Server(params)
    timings = [None] * args.streams

    def ask(i):
        answer = server.handle_completions({
            "prompt": prompt(args.prompt_tokens, i), "n_predict": args.decode_tokens,
            "temperature": 0, "ignore_eos": True, "cache_prompt": False})
        timings[i] = answer["timings"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(args.streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({
        "decode": sum(t["predicted_per_second"] for t in timings),
        "prefill": sum(t["prompt_n"] for t in timings) / max(t["prompt_ms"] for t in timings) * 1e3,
    }), flush=True)


def run_llama(args, streams):
    out = subprocess.run(
        [args.python, HERE, "--llama-child", "--model", args.model, "--streams", str(streams),
         "--threads", str(args.threads), "--prompt-tokens", str(args.prompt_tokens),
         "--decode-tokens", str(args.decode_tokens)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=args.timeout)
    return json.loads(out.stdout.decode().strip().splitlines()[-1])


def run_ours(args, streams):
    blocks = (args.prompt_tokens + args.decode_tokens) // 16 + 2
    out = subprocess.run(
        [args.worker, "bench", "--json", "--model", args.model, "--threads", str(args.threads),
         "--batch", str(streams), "--repeats", "1", "--kv-blocks", str(blocks * streams),
         "--prompt-tokens", str(args.prompt_tokens), "--decode-tokens", str(args.decode_tokens)],
        stdout=subprocess.PIPE, check=True, timeout=args.timeout)
    report = json.loads(out.stdout)
    result = report["results"][0]
    return {"decode": result["decode_tok_s"], "prefill": result["prefill_tok_s"],
            "kernel": report["kernel"]}


def find_llama(folder):
    python = os.path.join(folder, "bin", "python")
    probe = [python, "-c", "import xllamacpp; print(xllamacpp.__version__)"]
    try:
        return python, subprocess.check_output(probe, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    try:
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", WHEEL], check=True, timeout=600,
                       stdout=sys.stderr)
        return python, subprocess.check_output(probe, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SKIPPED: {WHEEL} cannot be installed: {error}", file=sys.stderr)
        sys.exit(69)


def main():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="build/bin/infer-worker")
    parser.add_argument("--model", default=os.environ.get("PARLEY_MODEL") or os.path.join(
        home, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--venv", default="", help="default: llamacpp-venv beside the worker's bin folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", default="1,16", help="numbers of sequences at once")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one measurement")
    parser.add_argument("--min-ratio", default="", help="decode ratios asked for, as 1:1.6,16:4")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--llama-child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_child:
        args.streams = int(args.streams)
        return llama_child(args)

    folder = args.venv or os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(args.worker))),
                                       "llamacpp-venv")
    args.python, version = find_llama(folder)
    wanted = dict(pair.split(":") for pair in args.min_ratio.split(",") if pair)
    rows, kernel, reached = [], "", True
    try:
        for streams in [int(n) for n in args.streams.split(",")]:
            ours, llama = [], []
            for _ in range(args.rounds):
                ours.append(run_ours(args, streams))
                llama.append(run_llama(args, streams))
            kernel = ours[0]["kernel"]
            row = {"streams": streams}
            for what in ("decode", "prefill"):
                mine = statistics.median(r[what] for r in ours)
                theirs = statistics.median(r[what] for r in llama)
                row[what] = {"ours_tok_s": round(mine, 1), "llamacpp_tok_s": round(theirs, 1),
                             "ratio": round(mine / theirs, 2)}
            reached = reached and row["decode"]["ratio"] >= float(wanted.get(str(streams), 0))
            rows.append(row)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
        print(f"engine_vs_llamacpp: {error}", file=sys.stderr)
        return 70
    about = {"kernel": kernel, "threads": args.threads, "rounds": args.rounds,
             "prompt_tokens": args.prompt_tokens, "decode_tokens": args.decode_tokens,
             WHEEL: version, "load": os.getloadavg()[0]}
    if args.json:
        print(json.dumps({**about, "results": rows}))
    else:
        print(" · ".join(f"{key} {value}" for key, value in about.items()))
        print("streams          ours     llama.cpp  ratio   (tokens a second, all streams)")
        for row in rows:
            for what in ("decode", "prefill"):
                r = row[what]
                print(f"{row['streams']:4} {what:8} {r['ours_tok_s']:9.1f} {r['llamacpp_tok_s']:12.1f}"
                      f"  {r['ratio']:5.2f}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
