#!/usr/bin/env python3
"""Overload of the whole pipeline with the real engine: an open loop at 0.8 to 10 times what it can do, in one table with llama.cpp's.

    PARLEY_BUILD=build tests/bench/overload.py [--short] [--seconds 20] [--slo-ms 2000] [--orgs 8] [--anchor FOLDER] [--check] [--json]

Capacity is what a closed loop of --concurrency requests gets. Then Poisson arrivals (loadgen), each request with the deadline
--slo-ms for its first token (x-slo-ttft-ms); good is who met it. Requests of --orgs organizations, a loadgen each. Beside the
load a client with the key of one of them asks ten times a second: how long a refusal takes, and whether it says when to come again.
With --anchor llama.cpp's server (16 slots) gets the same arrivals, by its own capacity, in columns of their own.
`cores`: what the worker had of the processors. Where a row above capacity has less than the others, the host gave it to others,
and the row says nothing of the pipeline.
Exit status 1 with --check where goodput at 4 times is below 90 % of the peak, a refusal's median at 4 or 10 times takes 20 ms, or
one comes without retry-after.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
import fair_test
import harness
import llama_server

LOADS = (0.8, 1, 1.5, 2, 4, 10)
PROMPT, TOKENS = "What is the time in a city by the sea, and how does one read it from the sun?", 32


def loadgen(p, key, *arguments):
    return subprocess.Popen([os.path.join(harness.BIN, "loadgen"), "run", "--url", f"http://{p.host}:{p.port}", "--model", p.model, "--json",
                             "--prompt", PROMPT, "--max-tokens", str(TOKENS), *arguments],
                            env=dict(os.environ, PARLEY_API_KEY=key), stdout=subprocess.PIPE, text=True)


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reports(runs):
    return [json.loads(run.communicate(timeout=600)[0].splitlines()[-1]) for run in runs]


def probe(p, key, slo_ms, stop, refusals, bad):
    """One request of somebody ten times a second, left as soon as it has begun."""
    headers = {**p.headers(), "x-api-key": key, "x-slo-ttft-ms": str(slo_ms)}
    while not stop.wait(0.1):
        start = time.monotonic()
        stream = harness.Stream(p, "/v1/messages", p.body("Hello there.", stream=True, max_tokens=4), headers)
        took = (time.monotonic() - start) * 1000
        if stream.end == "refused":
            refusals.append(took)
            if not 1 <= int(stream.response.headers.get("retry-after", 0)) <= 60:
                bad.append(stream.error)
        else:
            threading.Thread(target=stream.read).start()


def anchor(server, args, seconds):
    """The same of llama.cpp's server: [{"load", "goodput_per_s", "ttft_p50_ms"}]. Who has not begun when the row ends has missed."""
    with server as s:
        lock, done, stop = threading.Lock(), [], threading.Event()

        def one(at):
            first = s.ask(PROMPT, TOKENS, model="any")[0]
            with lock:
                done.append((at, first))

        def closed():
            while not stop.is_set():
                one(0)

        threads = [threading.Thread(target=closed) for _ in range(args.concurrency)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        stop.set()
        capacity = len(done) / seconds
        for thread in threads:
            thread.join(300)
        rows, draw = [], random.Random(1)
        for load in LOADS:
            done.clear()
            threads, end = [], time.monotonic() + seconds
            while time.monotonic() < end:
                threads.append(threading.Thread(target=one, args=(load,)))
                threads[-1].start()
                time.sleep(draw.expovariate(load * capacity))
            for thread in threads:  # what has queued up is waited for: the next row begins idle
                thread.join(600)
            firsts = sorted(first for _, first in done if first is not None)
            rows.append({"load": load, "offered_per_s": load * capacity, "goodput_per_s": sum(first * 1000 <= args.slo_ms for first in firsts) / seconds,
                         "ttft_p50_ms": 1000 * statistics.median(firsts) if firsts else None})
        return {"capacity_per_s": capacity, "rows": rows}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="rows of 6 s")
    parser.add_argument("--seconds", type=float, default=0, help="of each row; default 20")
    parser.add_argument("--anchor", default="", help="folder with a llama-server")
    parser.add_argument("--slo-ms", type=int, default=2000)
    parser.add_argument("--orgs", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    harness.need_model()
    seconds, warmup = args.seconds or (6 if args.short else 20), "3s" if args.short else "8s"
    rows, bad = [], []
    with harness.Pipeline() as p:
        orgs = [fair_test.Org(p, f"org-{i}", 1) for i in range(args.orgs)]
        each = str(max(1, args.concurrency // args.orgs))
        closed = reports([loadgen(p, o.key, "--concurrency", each, "--warmup", "4s", "--duration", f"{seconds}s") for o in orgs])
        capacity = sum(r["requests_per_s"] for r in closed)
        for load in LOADS:
            stop, refusals = threading.Event(), []
            prober_thread = threading.Thread(target=probe, args=(p, orgs[0].key, args.slo_ms, stop, refusals, bad))
            prober_thread.start()
            worker, began = p.pid("infer-worker-0"), time.monotonic()
            worker_s = cpu_s(worker)
            got = reports([loadgen(p, o.key, "--rate", f"{load * capacity / args.orgs:.4f}", "--seed", str(i), "--warmup", warmup, "--duration",
                                   f"{seconds}s", "--slo-ttft", f"{args.slo_ms}ms", "--slo-header") for i, o in enumerate(orgs)])
            stop.set()
            cores = (cpu_s(worker) - worker_s) / (time.monotonic() - began)
            prober_thread.join()
            status = {}
            for r in got:
                for code, n in r["http_status"].items():
                    status[code] = status.get(code, 0) + n
            rows.append({"load": load, "offered_per_s": load * capacity, "goodput_per_s": sum(r["goodput_per_s"] for r in got),
                         "ttft_p50_ms": statistics.median(r["ttft_ms"].get("p50", 0) for r in got), "ttft_p99_ms": max(r["ttft_ms"].get("p99", 0) for r in got),
                         "status": status, "worker_cores": cores, "refusals_seen": len(refusals), "refusal_p50_ms": statistics.median(refusals) if refusals else None,
                         "refusal_p99_ms": sorted(refusals)[int(0.99 * len(refusals))] if refusals else None})
            time.sleep(2)
    peak = max(row["goodput_per_s"] for row in rows)
    kept = next(row["goodput_per_s"] for row in rows if row["load"] == 4) / peak
    server = llama_server.LlamaServer.find(args.anchor, harness.MODEL)
    other = anchor(server, args, seconds) if server else None
    if args.json:
        print(json.dumps({"capacity_per_s": capacity, "slo_ms": args.slo_ms, "rows": rows, "kept_at_4": kept, "anchor": other}))
    else:
        print(f"capacity {capacity:.2f} requests/s; good: first token within {args.slo_ms} ms")
        print("load  offered/s  goodput/s  of peak  TTFT p50  p99 ms   refusal p50  p99 ms  cores  HTTP" + ("      llama.cpp goodput/s  of peak  TTFT p50" if other else ""))
        other_peak = max(row["goodput_per_s"] for row in other["rows"]) or 1 if other else 1
        for i, row in enumerate(rows):
            took = "       -       -" if row["refusal_p50_ms"] is None else f"{row['refusal_p50_ms']:8.1f}{row['refusal_p99_ms']:8.1f}"
            line = (f"{row['load']:4}  {row['offered_per_s']:9.1f}  {row['goodput_per_s']:9.2f}  {100 * row['goodput_per_s'] / peak:5.0f} %  "
                    f"{row['ttft_p50_ms']:8.0f} {row['ttft_p99_ms']:7.0f}  {took}  {row['worker_cores']:5.2f}  {row['status']}")
            if other:
                o = other["rows"][i]
                line += f"      {o['goodput_per_s']:9.2f}  {100 * o['goodput_per_s'] / other_peak:5.0f} %  {o['ttft_p50_ms'] or 0:8.0f}"
            print(line)
        print(f"at 4 times {100 * kept:.0f} % of the peak")
        if not other:
            print(llama_server.ABSENT.format(args.anchor))
            print(llama_server.STATED)
    if bad:
        print("refusals without a retry-after of 1 to 60 s:", bad[:3])
    slow = [row for row in rows if row["load"] >= 4 and (row["refusal_p50_ms"] or 0) >= 20]
    return 1 if args.check and (kept < 0.9 or slow or bad) else 0


if __name__ == "__main__":
    sys.exit(main())
