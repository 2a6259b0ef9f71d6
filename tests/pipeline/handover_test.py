"""A worker that is killed, stopped or drained under 16 greedy streams: the router moves each to the other worker, and every text is
the uncut one. The clients see a pause; chatd's own recovery is not needed."""

import json
import os
import signal
import subprocess
import time

import harness

KILLS = int(os.environ.get("PARLEY_KILLS", "4"))  # tests/long.sh handover: 50
STREAMS = 16
PROMPTS = ["Why is the sky blue?", "What is gravity?", "Explain what a computer is.", "Tell me a story about a fox.",
           "What is a river?", "Describe a city at night.", "How does a clock work?", "Write about the sea."]
BIN = os.path.join(harness.ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin")
pipeline = harness.Pipeline(PARLEY_WORKERS=2)


def status():
    done = subprocess.run([os.path.join(BIN, "router"), "status", "--json"], capture_output=True, text=True, timeout=20,
                          env=dict(os.environ, PARLEY_STATE=pipeline.state))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def body(i):
    return pipeline.body(PROMPTS[i % len(PROMPTS)] + f" ({i})", stream=True, max_tokens=300)


uncut = []


def under(disturb):
    """Disturbs while 16 greedy streams run, and compares; returns how many the router moved."""
    if not uncut:
        uncut.extend(harness.uncut_texts(pipeline, body, STREAMS))
    before = status()["counters"]["moved"]
    harness.disturbed(pipeline, body, uncut, disturb)
    return status()["counters"]["moved"] - before


def both_workers(limit=10):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if len(status()["workers"]) == 2:
            return
        time.sleep(0.05)
    raise AssertionError("the worker did not come back" + pipeline.logs())


def test_killed_workers_break_no_stream():
    moved = 0
    for n in range(KILLS):
        both_workers()
        name = f"infer-worker-{n % 2}"
        old = []
        moved += under(lambda: old.append(pipeline.kill(name)))
        pipeline.wait_restarted(name, old[0])
    print(f"      {KILLS} kills under {STREAMS} streams: {moved} moved, 0 broken, every text the uncut one")
    assert moved >= KILLS


def test_a_stopped_worker_breaks_no_stream():
    both_workers()
    pid = pipeline.pid("infer-worker-0")
    moved = under(lambda: os.kill(pid, signal.SIGSTOP))
    os.kill(pid, signal.SIGCONT)
    print(f"      stopped: {moved} moved")
    assert moved >= 1


def test_a_drained_worker_cuts_nothing():
    both_workers()
    old = []
    under(lambda: old.append(pipeline.kill("infer-worker-1", signal.SIGTERM)))
    pipeline.wait_restarted("infer-worker-1", old[0], limit=20)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        pipeline.stop()
