#!/usr/bin/env python3
"""Many requests through one worker, a part of them cancelled at random: everyone gets one end, no memory and no KV block is lost.

    tests/soak.py simulated [REQUESTS]   the simulated engine: its scheduler, KV accounts, service and protocol are the real ones
    tests/soak.py real [REQUESTS]        the model

Every tenth of the way it lets all end and looks: nothing runs, nothing waits, all KV blocks are free or can be evicted, and
the process is no larger than it was at three tenths (--grows MiB). PARLEY_TEST_SEED repeats a run's requests, not its times.
Exit status: 0, or 1 with what was wrong.
"""
import argparse
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from worker_link import Worker  # noqa: E402

PARTS = 10
SILENCE_S = 60
WORDS = "river stone lamp garden winter paper silver window morning bread letter road horse market cloud".split()


class Soak:
    def __init__(self, worker, rand, at_once, words_most, tokens_most):
        self.worker, self.random, self.at_once = worker, rand, at_once
        self.words_most, self.tokens_most = words_most, tokens_most
        self.asked = self.events = 0
        self.ends = {}
        self.live = {}      # request: events until it is cancelled; None: never; -1: it has been
        self.status = {}
        self.shared = [" ".join(rand.choices(WORDS, k=rand.randrange(1, words_most))) for _ in range(20)]

    def ask(self):
        rand, name = self.random, f"req_{self.asked}"
        self.asked += 1
        text = rand.choice(self.shared) + " " + " ".join(rand.choices(WORDS, k=rand.randrange(1, self.words_most)))
        body = {"model": "m", "max_tokens": rand.randrange(1, self.tokens_most), "temperature": rand.choice([0, 1]),
                "messages": [{"role": "user", "content": text}]}
        if rand.random() < 0.1:
            body["stop_sequences"] = ["the", "."]
        self.live[name] = rand.randrange(0, 12) if rand.random() < 0.25 else None
        org = f"org_{rand.randrange(12)}"
        self.worker.ask(name, body, org=org, flow=org, weight=rand.choice([1, 1, 4]), seed=self.asked,
                        **{"class": rand.choice(["interactive", "streaming", "batch"])})
        if self.live[name] == 0:
            self.cancel(name)

    def cancel(self, name):
        self.live[name] = -1
        self.worker.cancel(name)

    def take(self):
        """One message; False on STATUS."""
        verb, name, meta, body = self.worker.next(time.monotonic() + SILENCE_S)
        if verb == "STATUS":
            self.status = meta
            return False
        if verb == "EVENT":
            self.events += 1
            if name not in self.live:
                raise AssertionError(f"{name}: an event after its end")
            left = self.live[name]
            if left is not None and left > 0:
                self.live[name] = left - 1
                if left == 1:
                    self.cancel(name)
        elif verb == "END":
            if name not in self.live:
                raise AssertionError(f"{name}: ended twice")
            cancelled = self.live.pop(name) == -1
            status = meta["status"]
            if status != "ok" and not (cancelled and status == "cancelled"):
                raise AssertionError(f"{name}: {meta}")
            self.ends[status] = self.ends.get(status, 0) + 1
        return True

    def run(self, until):
        while self.asked < until or self.live:
            while self.asked < until and len(self.live) < self.at_once:
                self.ask()
            self.take()
        for _ in range(2):  # of a moment after the last end
            while self.take():
                pass
        status = self.status
        if status["running"] or status["waiting"] or status.get("kv_free") != status["kv_total"]:
            raise AssertionError(f"not at rest after {until} requests: {status}")


def main():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["simulated", "real"])
    parser.add_argument("requests", type=int, nargs="?", default=0)
    parser.add_argument("--worker", default=os.path.join(os.environ.get("PARLEY_BUILD", "build"), "bin", "infer-worker"))
    parser.add_argument("--model", default=os.environ.get("PARLEY_MODEL") or os.path.join(
        home, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--grows", type=float, default=4, help="MiB that the process may be larger in the end")
    args = parser.parse_args()
    simulated = args.engine == "simulated"
    requests = args.requests or (100_000 if simulated else 2_000)
    seed = int(os.environ.get("PARLEY_TEST_SEED") or random.randrange(2**32))
    print(f"{args.engine}, {requests} requests, PARLEY_TEST_SEED={seed}", flush=True)
    # So few KV blocks that all are in use soon, some requests are preempted and kept ones evicted.
    options = ["--simulate", "--simulate-speed", "1000", "--simulate-tokens", "12", "--slots-max", "32", "--kv-blocks", "256",
               "--queue-max", "64"] if simulated else ["--model", args.model, "--slots-max", "8", "--kv-blocks", "192"]
    with Worker(args.worker, *options) as worker:
        soak = Soak(worker, random.Random(seed), 80 if simulated else 24, 40 if simulated else 150, 40 if simulated else 24)
        started, sizes = time.monotonic(), []
        try:
            for part in range(1, PARTS + 1):
                soak.run(requests * part // PARTS)
                sizes.append(worker.rss_bytes() / 2**20)
                print(f"{soak.asked:7} asked, {soak.events:8} events, {soak.ends}, RSS {sizes[-1]:.1f} MiB, KV free "
                      f"{soak.status['kv_free']} of {soak.status['kv_total']}, {time.monotonic() - started:.0f} s", flush=True)
        except (AssertionError, TimeoutError, ConnectionError) as error:
            print(f"FAILED: {type(error).__name__} {error}")
            return 1
        growth = max(sizes[-3:]) - sizes[2]
        print(f"RSS {sizes[2]:.1f} MiB at three tenths, {growth:+.2f} MiB in the end")
        if growth > args.grows:
            print(f"FAILED: it grew by more than {args.grows} MiB")
            return 1
        if not soak.ends.get("cancelled") or not soak.ends.get("ok"):
            print("FAILED: nothing was cancelled, or nothing ended by itself")
            return 1
    if worker.process.returncode != 0:
        print(f"FAILED: the worker's exit status is {worker.process.returncode}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
