"""What the units forbid is nothing that the daemons do: started, asked, reloaded and drained under strace, and compared with
the system calls, address families and memory protections that the unit files allow."""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import docs
from docs import check

MODEL = os.environ.get("PARLEY_MODEL") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "parley", "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
ORDER = ["convstore", "router", "safety-filter", "infer-worker", "chatd"]

for program in ("strace", "systemd-analyze"):
    if not shutil.which(program):
        docs.skip(f"no {program} here")
if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
    docs.skip("strace may not trace here")
if not os.path.exists(MODEL):
    docs.skip(f"no model at {MODEL}")
docs.need_tools()


def groups():
    """{"@system-service": {call, …}} with nested groups resolved."""
    raw, current = {}, None
    for line in subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, timeout=60).stdout.splitlines():
        if line.startswith("@"):
            current = raw.setdefault(line.strip(), [])
        elif line.startswith("    ") and current is not None and not line.strip().startswith("#"):
            current.append(line.strip())

    def expand(name):
        return set().union(*(expand(m) if m.startswith("@") else {m} for m in raw.get(name, [])))

    return {name: expand(name) for name in raw}


class Traced:
    def __init__(self, tool, folder, env, *arguments):
        self.trace = os.path.join(folder, tool + ".trace")
        self.log = os.path.join(folder, tool + ".log")
        self.strace = subprocess.Popen(["strace", "-f", "-s", "0", "-o", self.trace, os.path.join(docs.BIN, tool), "serve", *arguments],
                                       env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.log, "w"))

    def says(self, what, limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end and self.strace.poll() is None:
            with open(self.log) as file:
                if what in file.read():
                    return True
            time.sleep(0.05)
        return False

    def signal(self, number):
        with open(self.trace, errors="replace") as file:
            os.kill(int(file.readline().split()[0]), number)


allowed_of = {}
known = groups()
check(len(known.get("@system-service", ())) > 200, "systemd-analyze lists the system calls of its groups")
for path in glob.glob(os.path.join(docs.ROOT, "examples", "systemd", "*.service")):
    calls, families = set(), set()
    with open(path) as file:
        text = file.read()
    for sign, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", text, re.M):
        for name in names.split():
            calls = calls - known.get(name, {name}) if sign else calls | known.get(name, {name})
    families = set(re.search(r"^RestrictAddressFamilies=(.*)$", text, re.M)[1].split())
    allowed_of[os.path.basename(path).split(".")[0].rstrip("@")] = (calls, families)

with tempfile.TemporaryDirectory() as folder:
    env = {**docs.environment(), "PARLEY_STATE": os.path.join(folder, "state"), "PARLEY_MODEL": MODEL}
    running = []
    try:
        for tool in ORDER:
            running.append(Traced(tool, folder, env, "--metrics", "127.0.0.1:0", *(["--bind", "127.0.0.1:0"] if tool == "chatd" else [])))
            name = {"safety-filter": "filter", "infer-worker": "worker"}.get(tool, tool)
            check(running[-1].says(f"event={name}.ready"), f"{tool} becomes ready under strace: {open(running[-1].log).read()[-500:]}")

        with open(running[-1].log) as file:
            url = re.search(r"event=chatd.ready url=(\S+)", file.read())[1]

        def convstore(*arguments):
            done = subprocess.run([os.path.join(docs.BIN, "convstore"), *arguments, "--json"], env=env, capture_output=True, text=True, timeout=60)
            check(done.returncode == 0, f"convstore {arguments}: {done.stderr}")
            return json.loads(done.stdout)

        convstore("org", "create", "traced")
        key = convstore("key", "create", "--org", "traced")["key"]

        def post(path, body):
            request = urllib.request.Request(url + path, json.dumps(body).encode(), {"x-api-key": key, "content-type": "application/json", "anthropic-version": "2023-06-01"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(url + "/readyz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        out = post("/v1/messages", {"model": "default", "max_tokens": 4, "stream": True, "messages": [{"role": "user", "content": "Hello"}]})
        check(b"message_stop" in out, f"a traced pipeline answers: {out[-300:]}")
        conversation = json.loads(post("/v1/conversations", {}))["id"]
        out = post(f"/v1/conversations/{conversation}/messages", {"content": "Hello", "stream": True})
        check(b"message_stop" in out, f"and keeps a conversation: {out[-300:]}")
        for one in running:
            one.signal(signal.SIGHUP)
        time.sleep(0.5)
    finally:
        for one in reversed(running):
            if one.strace.poll() is None:
                one.signal(signal.SIGTERM)
                try:
                    one.strace.wait(30)
                except subprocess.TimeoutExpired:
                    one.signal(signal.SIGKILL)
                    check(False, f"{one.trace} drained within 30 s")

    for tool in ORDER:
        with open(os.path.join(folder, tool + ".trace"), errors="replace") as file:
            trace = file.read()
        calls, families = allowed_of[tool]
        used = set(re.findall(r"^\d+ +(\w+)\(", trace, re.M))
        check(len(used) > 30, f"the trace of {tool} shows its calls: {len(used)}")
        check(used <= calls, f"the unit of {tool} forbids {sorted(used - calls)}")
        opened = set(re.findall(r" socket\((AF_\w+)", trace))
        check(opened <= families, f"the unit of {tool} forbids sockets of {sorted(opened - families)}")
        # MemoryDenyWriteExecute: no page that can be written and run, nor made so later.
        check(not re.search(r"PROT_WRITE\|PROT_EXEC|mprotect\(.*PROT_EXEC", trace), f"{tool} makes no memory that is written and run")
docs.finish()
