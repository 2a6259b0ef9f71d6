#!/usr/bin/env python3
"""What the front costs: chatd alone, and the whole chain, beside nginx and LiteLLM. One run, one client (loadgen).

    PARLEY_BUILD=build tests/bench/front_overhead.py [--requests 4000] [--rounds 5] [--short] [--litellm] [--check]

nginx and LiteLLM stand before an nginx that gives a canned answer at once; what they add is their latency minus
the canned one's, asked directly. chatd alone stands before a stub (bench_stub_stage: the same answer at once), the chain before a simulated worker (stated:
no model, no time of its own), with keys, limits, counting and durable usage as shipped; their added latency is given
whole, the part of what answers included, so that it is never flattered. Latency at one request at a time, requests a second at --concurrency. CPU is that of
the measured processes (/proc), a request; memory their private pages after the load. LiteLLM is put into a
virtual environment under the build folder when --litellm asks for it (some 500 MB from PyPI).
Prints a table, --json one object. Exit status 1 with --check below a target; 69 where nginx is missing.
"""
import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from harness import ROOT, Pipeline

BUILD = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"))
BIN = os.path.join(BUILD, "bin")
SIMULATED = ["--simulate-speed=1000000", "--simulate-tokens=0", "--slots-max=64"]

CANNED = """event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"stub","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ok"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"output_tokens":1}}

event: message_stop
data: {"type":"message_stop"}

"""

NGINX = """
worker_processes %(workers)d; daemon off; pid %(folder)s/%(name)s.pid; error_log %(folder)s/%(name)s.err;
events { worker_connections 2048; }
http { access_log off; client_body_temp_path %(folder)s/%(name)s.body; proxy_temp_path %(folder)s/%(name)s.tmp;
  fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s; keepalive_requests 10000000;
  %(http)s
  server { listen 127.0.0.1:%(port)d; location / { %(location)s } } }
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def family(pid):
    """The process and all below it."""
    pids, todo = [], [pid]
    while todo:
        one = todo.pop()
        pids.append(one)
        try:
            with open(f"/proc/{one}/task/{one}/children", encoding="ascii") as file:
                todo += [int(c) for c in file.read().split()]
        except OSError:
            pass
    return pids


def cpu_s(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def private_mib(pids):
    kib = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            kib += sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
    return kib / 1024


class Front:
    """Something that answers POST /v1/messages at url. pids(): the processes that are its cost."""

    def __init__(self, name, url, model, pids, key="none", close=lambda: None):
        self.name, self.url, self.model, self.pids, self.key, self.close = name, url, model, pids, key, close
        self.latency, self.tail, self.rate, self.cpu, self.memory = [], [], [], [], 0.0

    def load(self, concurrency, requests):
        run = subprocess.run(
            [os.path.join(BIN, "loadgen"), "run", "--url", self.url, "--model", self.model, "--json", "--prompt", "Hello there.",
             "--max-tokens", "4", "--concurrency", str(concurrency), "--requests", str(requests), "--warmup-requests", "20"],
            env=dict(os.environ, PARLEY_API_KEY=self.key), capture_output=True, text=True, timeout=600)
        report = json.loads(run.stdout.splitlines()[-1])
        if report["requests"]["failed"]:
            raise RuntimeError(f"{self.name}: {report['requests']} {report['errors']} {report['http_status']}")
        return report

    def measure(self, concurrency, requests):
        alone = self.load(1, max(200, requests // 10))
        self.latency.append(alone["e2el_ms"]["p50"])
        self.tail.append(alone["e2el_ms"]["p99"])
        before = cpu_s(self.pids())
        many = self.load(concurrency, requests)
        self.cpu.append((cpu_s(self.pids()) - before) / requests * 1e6)
        self.rate.append(many["requests_per_s"])
        self.memory = private_mib(self.pids())


def wait_for(url, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer after {seconds} s")


def nginx(name, folder, http, location):
    port = free_port()
    path = os.path.join(folder, name + ".conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(NGINX % {"name": name, "folder": folder, "port": port, "http": http, "location": location, "workers": 2})
    process = subprocess.Popen(["nginx", "-c", path, "-p", folder], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    wait_for(url, 5)
    return Front(name, url, "stub", lambda: family(process.pid), close=lambda: (process.terminate(), process.wait(10)))


LITELLM = os.path.join(BUILD, "anchors", "litellm")


def install_litellm():
    if os.path.exists(os.path.join(LITELLM, ".done")):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", LITELLM], check=True)
    subprocess.run([os.path.join(LITELLM, "bin", "pip"), "install", "-q", "--disable-pip-version-check", "litellm[proxy]"], check=True, timeout=1800)
    with open(os.path.join(LITELLM, ".done"), "w", encoding="ascii"):
        pass


def litellm(folder, upstream):
    binary = os.path.join(LITELLM, "bin", "litellm")
    path, port = os.path.join(folder, "litellm.yaml"), free_port()
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps({"model_list": [{"model_name": "stub", "litellm_params": {
            "model": "anthropic/stub", "api_base": upstream, "api_key": "none"}}]}))
    key = "sk-" + secrets.token_hex(24)  # it does not start without one
    process = subprocess.Popen([binary, "--config", path, "--host", "127.0.0.1", "--port", str(port)], env=dict(os.environ, LITELLM_MASTER_KEY=key),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def close():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)

    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url + "/health/liveliness", 300)
    except RuntimeError:
        close()
        raise
    return Front("litellm", url, "stub", lambda: family(process.pid), key, close)


def chain():
    pipeline = Pipeline(PARLEY_SIMULATE=" ".join(SIMULATED), PARLEY_MODEL="/none")
    names = ["convstore", "router", "safety-filter", "infer-worker-0", "chatd"]
    return Front("chatd, filter, router, worker", pipeline.info["url"], pipeline.model,
                 lambda: [pipeline.pid(n) for n in names], pipeline.key, pipeline.stop)


def alone(folder):
    """chatd, the store, and the stub right behind chatd. Counted: chatd and the store."""
    state = os.path.join(folder, "alone")
    os.mkdir(state, 0o700)
    os.mkdir(os.path.join(state, "run"), 0o700)
    env = dict(os.environ, PARLEY_STATE=state)
    stage = f"ipc://{state}/run/stage.sock"
    port, processes = free_port(), []

    def start(*command):
        log = open(os.path.join(state, f"{command[0]}.log"), "w", encoding="utf-8")
        processes.append(subprocess.Popen([os.path.join(BIN, command[0]), *command[1:]], env=env, stdout=log, stderr=log))

    def ask(*command):
        for _ in range(100):
            run = subprocess.run([os.path.join(BIN, command[0]), *command[1:]], env=env, capture_output=True, text=True)
            if run.returncode == 0:
                return run.stdout
            time.sleep(0.05)
        raise RuntimeError(run.stderr)

    start("convstore", "serve")
    # A router writes the model that joins it into the store; then both go, and the stage stands alone.
    start("router", "serve")
    start("infer-worker", "serve", "--simulate", *SIMULATED)
    for _ in range(100):
        if "simulated" in ask("router", "status", "--json"):
            break
        time.sleep(0.1)
    time.sleep(1)
    for _ in range(2):
        process = processes.pop()
        process.terminate()
        process.wait(20)
    start("bench_stub_stage", stage)
    start("chatd", "serve", "--bind", f"127.0.0.1:{port}", "--filter", stage, "--allow-unfiltered")
    ask("convstore", "org", "create", "bench", "--json")
    key = json.loads(ask("convstore", "key", "create", "--org", "bench", "--json"))["key"]
    url = f"http://127.0.0.1:{port}"
    wait_for(url + "/readyz", 10)

    def close():
        for process in reversed(processes):
            process.terminate()
            process.wait(20)

    return Front("chatd alone", url, "simulated", lambda: [processes[0].pid, processes[2].pid], key, close)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="2 rounds of 2,000 requests")
    parser.add_argument("--litellm", action="store_true", help="install LiteLLM where it is not")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not shutil.which("nginx"):
        print("SKIPPED: nginx is not installed", file=sys.stderr)
        return 69
    if args.short:
        args.rounds, args.requests = 2, 2000
    if args.litellm:
        install_litellm()
    with_litellm = os.path.exists(os.path.join(LITELLM, ".done"))
    if not with_litellm:
        print(f"LiteLLM is not measured: it is not in {os.path.relpath(LITELLM, ROOT)} (--litellm puts it there)", file=sys.stderr)
    fronts = []
    with tempfile.TemporaryDirectory(prefix="parley-front-") as folder:
        try:
            canned = CANNED.replace("\\", "\\\\").replace("'", "\\'")
            fronts.append(nginx("canned", folder, "", f"default_type text/event-stream; return 200 '{canned}';"))
            upstream = fronts[0].url
            fronts.append(nginx("nginx", folder, f"upstream stub {{ server {upstream[7:]}; keepalive 64; }}",
                                "proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;"))
            if with_litellm:
                fronts.append(litellm(folder, upstream))
            fronts += [alone(folder), chain()]
            for _ in range(args.rounds):
                for front in fronts:
                    front.measure(args.concurrency, args.requests if front.name != "litellm" else min(300, args.requests))
        finally:
            for front in reversed(fronts):
                front.close()
    direct = statistics.median(fronts[0].latency)
    rows = []
    for f in fronts:
        from_zero = f.name.startswith("chatd")
        added = statistics.median(f.latency) - (0 if from_zero else direct)
        rows.append({"front": f.name, "added_p50_ms": round(added, 3), "p99_ms": round(statistics.median(f.tail), 3),
                     "requests_per_s": round(statistics.median(f.rate)), "cpu_us": round(statistics.median(f.cpu), 1),
                     "private_mib": round(f.memory, 1)})
    if args.json:
        print(json.dumps({"rounds": args.rounds, "concurrency": args.concurrency, "load": os.getloadavg()[0], "fronts": rows}))
    else:
        print(f"{'':30} added p50 ms    p99 ms  requests/s  CPU us  private MiB")
        for r in rows:
            print(f"{r['front']:30} {r['added_p50_ms']:12.3f} {r['p99_ms']:9.3f} {r['requests_per_s']:11} {r['cpu_us']:7.1f} {r['private_mib']:12.1f}")
    named = {r["front"]: r for r in rows}
    ours, whole = named["chatd alone"], named["chatd, filter, router, worker"]
    good = ours["added_p50_ms"] <= 0.1 and ours["requests_per_s"] >= 20000 and whole["added_p50_ms"] <= 1 and whole["private_mib"] <= 100
    if "litellm" in named:
        times = whole["requests_per_s"] / named["litellm"]["requests_per_s"]
        print(f"the chain answers {times:.0f} times as many requests a second as LiteLLM", file=sys.stderr)
        good = good and times >= 50
    return 1 if args.check and not good else 0


if __name__ == "__main__":
    sys.exit(main())
