"""Type=notify is kept: each daemon says READY=1 once it can be used, RELOADING=1 and READY=1 after SIGHUP, STOPPING=1 when it
drains, and exits 0. Started by the command line of its unit, in the order of the units."""

import os
import signal
import socket
import subprocess
import tempfile
import time

import docs
from docs import check

MODEL = os.environ.get("PARLEY_MODEL") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "parley", "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
ORDER = ["convstore", "convstore-index", "convstore-notify", "router", "safety-filter", "infer-worker", "chatd"]
docs.need_tools()


class Service:
    """A daemon under a supervisor that listens to what it notifies."""

    def __init__(self, tool, folder):
        self.tool, self.seen = tool, []
        with open(os.path.join(docs.ROOT, "examples", "systemd", tool + ("@" if tool == "infer-worker" else "") + ".service")) as file:
            line = next(line for line in file if line.startswith("ExecStart=/usr/bin/env "))
        words = line.split("env ", 1)[1].replace("%i", "0").split()
        words[words.index("--metrics") + 1] = "127.0.0.1:0"  # the unit's port may be taken here
        if tool == "chatd":
            words += ["--bind", "127.0.0.1:0"]
        path = os.path.join(folder, tool + ".notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.log = open(os.path.join(folder, tool + ".log"), "w+")
        env = {**docs.environment(), "PARLEY_STATE": os.path.join(folder, "state"), "PARLEY_MODEL": MODEL, "NOTIFY_SOCKET": path}
        self.process = subprocess.Popen([os.path.join(docs.BIN, words[0]), *words[1:]], env=env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self.log)

    def wait_for(self, what, limit=30):
        """All that is said until `what` is."""
        end, said = time.monotonic() + limit, []
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                said += self.socket.recv(65536).decode().split("\n")
            except TimeoutError:
                break
            if what in said:
                return said
        self.log.seek(0)
        check(False, f"{self.tool} says {what} within {limit} s; it said {said}\n{self.log.read()[-800:]}")
        return said


with tempfile.TemporaryDirectory() as folder:
    services = []
    try:
        for tool in ORDER:
            if tool == "infer-worker" and not os.path.exists(MODEL):
                print(f"infer-worker was not tried: no model at {MODEL}")
                continue
            services.append(Service(tool, folder))
            said = services[-1].wait_for("READY=1")
            check("STOPPING=1" not in said and services[-1].process.poll() is None, f"{tool} runs when it says that it does")
        for service in services:
            service.process.send_signal(signal.SIGHUP)
            said = service.wait_for("RELOADING=1")
            if "READY=1" not in said:
                said += service.wait_for("READY=1")
            check(said.index("RELOADING=1") < said.index("READY=1"), f"{service.tool} reloads, then is ready: {said}")
    finally:
        for service in reversed(services):
            service.process.send_signal(signal.SIGTERM)
            try:
                status = service.process.wait(20)
                service.wait_for("STOPPING=1", 1)
                check(status == 0, f"{service.tool} ends with {status} after SIGTERM")
            except subprocess.TimeoutExpired:
                service.process.kill()
                check(False, f"{service.tool} ends within 20 s")
docs.finish()
