"""A worker alone, with the real model: how soon it is ready, how large it is, and that it is never silent for long.

Other work may share the cores, so times are those of the best of a few tries.
"""

import os
import re
import sys

from harness import MODEL, ROOT, run_tests, skip

sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
from worker_link import Worker  # noqa: E402

BIN = os.path.join(os.environ.get("PARLEY_BUILD") or os.path.join(ROOT, "build"), "bin", "infer-worker")
READY_S, HEARTBEAT_S, SPARE_BYTES = 0.3, 0.25, 64 << 20
TRIES = 3


def used_s(worker):
    """CPU time of all its threads so far."""
    with open(f"/proc/{worker.process.pid}/stat") as file:
        return sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def test_ready_at_once():
    """In READY_S; where others take the cores, no more than that of CPU time."""
    seen = []
    for _ in range(TRIES):
        with Worker(BIN, "--model", MODEL) as worker:
            seen.append((worker.ready_s, used_s(worker)))
        if seen[-1][0] < READY_S:
            break
    print("      ready after " + ", ".join(f"{wall:.2f} s ({cpu:.2f} s of CPU)" for wall, cpu in seen))
    assert min(wall for wall, _ in seen) < READY_S or min(cpu for _, cpu in seen) < READY_S, seen


def test_as_large_as_weights_and_kv():
    """Also after all KV blocks have been written, and many requests ran at once."""
    with Worker(BIN, "--model", MODEL, "--kv-blocks", "512", "--slots-max", "16") as worker:
        worker.log.seek(0)
        weights, kv = map(int, re.search(r"event=worker.loaded .*weight_bytes=(\d+) kv_bytes=(\d+)", worker.log.read()).groups())
        sizes = [worker.rss_bytes()]
        for i in range(10):
            worker.ask(f"req_{i}", {"model": "m", "max_tokens": 8, "messages": [
                {"role": "user", "content": f"{i} " + "word " * 1000}]}, org="o")
        open_ones = 10
        while open_ones:
            open_ones -= next(worker.messages(60))[0] == "END"
        sizes.append(worker.rss_bytes())
    assert sizes[1] > kv, "the KV blocks were not written"
    assert max(sizes) <= weights + kv + SPARE_BYTES, (sizes, weights + kv)
    print(f"      {sizes[0] / 2**20:.0f} MiB at the start, {sizes[1] / 2**20:.0f} MiB with all KV blocks written; weights and KV: {(weights + kv) / 2**20:.0f} MiB")


def test_heartbeat_beside_a_long_prompt():
    """No STATUS is later than HEARTBEAT_S; where others take the cores, than the work that two threads do in that."""
    text = " ".join(["river", "stone", "lamp", "garden"] * 1740)
    seen = []
    with Worker(BIN, "--model", MODEL, "--prefix-cache", "0", "--threads", "2", "--nice", "0") as worker:
        for i in range(TRIES):
            worker.ask(f"req_{i}", {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": text}]})
            gaps, last = [], None
            for verb, _, meta, _ in worker.messages(400):
                if verb == "STATUS":
                    now = (worker.times[-1], used_s(worker))
                    if last:
                        gaps.append((now[0] - last[0], (now[1] - last[1]) / 2))
                    last = now
                if verb == "END":
                    break
            else:
                raise AssertionError("no END")
            assert meta["status"] == "ok" and 6500 < meta["usage"]["input_tokens"] < 8192, meta
            assert len(gaps) >= 5, gaps
            seen.append((max(wall for wall, _ in gaps), max(min(gap) for gap in gaps)))
            if seen[-1][0] <= HEARTBEAT_S:
                break
    print(f"      {meta['usage']['input_tokens']} tokens; longest between two STATUS " +
          ", ".join(f"{wall * 1e3:.0f} ms ({cpu * 1e3:.0f} ms of work)" for wall, cpu in seen))
    assert min(cpu for _, cpu in seen) <= HEARTBEAT_S, seen


if not os.access(BIN, os.X_OK) or not os.path.exists(MODEL):
    skip("no infer-worker, or no model")
run_tests(globals())
