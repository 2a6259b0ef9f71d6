"""What the pipeline costs when nobody asks anything, and how fast a worker is there."""

import os
import subprocess
import tempfile
import time

from harness import MODEL, ROOT, Pipeline, run_tests


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Private_"))


def test_each_daemon_but_the_worker_idles_under_50_mib_of_private_memory():
    with Pipeline() as pipeline:
        for _ in range(5):
            assert pipeline.message("Name three colors.", max_tokens=16)[0] == 200
        time.sleep(1)
        for name, pid in pipeline.info["pids"].items():
            size = private_bytes(pid) / 2**20
            print(f"      {name}: {size:.1f} MiB private")
            if not name.startswith("infer-worker"):
                assert size < 50, (name, size)


def test_the_worker_is_ready_in_under_two_seconds():
    binary = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin", "infer-worker")
    model = MODEL
    times = []
    for _ in range(3):
        state = tempfile.mkdtemp(prefix="parley-ready-")
        start = time.monotonic()
        worker = subprocess.Popen([binary, "serve", "--model", model, "--bind", f"ipc://{state}/front.sock"],
                                  env=dict(os.environ, PARLEY_STATE=state), stderr=subprocess.PIPE, text=True)
        for line in worker.stderr:
            if "event=worker.ready" in line:
                break
        else:
            raise AssertionError("the worker ended before it was ready")
        times.append(time.monotonic() - start)
        worker.terminate()
        worker.communicate(timeout=20)
    print(f"      start to ready: {sorted(times)[1] * 1000:.0f} ms (median of 3)")
    assert sorted(times)[1] < 2, times


if __name__ == "__main__":
    run_tests(globals())
