"""A worker on "another machine": over tcp with CURVE, known by its HELLO, refused without a key that is listed."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time

from harness import BIN, check, failures

state = tempfile.mkdtemp(prefix="parley-fleet-")
started = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tool(name, *arguments):
    done = subprocess.run([os.path.join(BIN, name), *arguments], capture_output=True, text=True, timeout=20,
                          env=dict(os.environ, PARLEY_STATE=state))
    return done.returncode, done.stdout.strip(), done.stderr


def daemon(name, log, *arguments):
    process = subprocess.Popen([os.path.join(BIN, name), "serve", *arguments], env=dict(os.environ, PARLEY_STATE=state),
                               stdout=subprocess.DEVNULL, stderr=open(os.path.join(state, log + ".log"), "w"))
    started.append(process)
    return process


def log(name):
    with open(os.path.join(state, name + ".log")) as file:
        return file.read()


def wait(test, limit=10):
    end = time.monotonic() + limit
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def status():
    code, out, _ = tool("router", "status", "--json")
    return json.loads(out) if code == 0 else {"workers": []}


def workers():
    return {worker["name"]: worker["zone"] for worker in status()["workers"]}


def worker(name, *arguments):
    return daemon("infer-worker", name, "--simulate", "--simulate-speed=100", "--name", name, *arguments)


def key(name):
    path = os.path.join(state, name)
    code, out, said = tool("router", "key", "create", path)
    assert code == 0, said
    return path, out


def main():
    router_key, router_public = key("router.key")
    one_key, one_public = key("one.key")
    stranger_key, stranger_public = key("stranger.key")
    check("a secret key can be read by its owner only", stat.S_IMODE(os.stat(router_key).st_mode) == 0o600)
    check("key show prints what key create printed", tool("router", "key", "show", router_key)[1] == router_public)
    code, _, said = tool("router", "key", "create", router_key)
    check("a key is not written over, in words", code != 0 and "never written over" in said, (code, said))
    check("and it is the old one still", tool("router", "key", "show", router_key)[1] == router_public)

    everywhere = f"tcp://0.0.0.0:{free_port()}"
    code, _, said = tool("router", "serve", "--workers-bind", everywhere)
    check("a router does not open to the network without keys", code == 78 and "refused without CURVE keys" in said, (code, said))
    code, _, said = tool("router", "serve", "--workers-bind", everywhere, "--curve-key", router_key)
    check("nor with a key and no list of who gets in", code == 78 and "--curve-allow" in said, (code, said))

    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    daemon("convstore", "convstore")
    router = daemon("router", "router", "--workers-bind", endpoint, "--curve-key", router_key, "--curve-allow", one_key + ".pub")
    assert wait(lambda: "router.ready" in log("router")), log("router")
    joined = ["--router", endpoint, "--curve-server", router_public]
    worker("one", *joined, "--curve-key", one_key, "--zone", "north")
    check("a worker whose key is listed is known by its HELLO, with its zone", wait(lambda: workers() == {"one": "north"}), log("one"))

    code, table, _ = tool("router", "status")
    check("the table shows it with its zone", code == 0 and re.search(r"^WORKER +ZONE ", table, re.M) and re.search(r"^one +north ", table, re.M), table)
    watch = subprocess.Popen([os.path.join(BIN, "router"), "status", "--watch"], env=dict(os.environ, PARLEY_STATE=state), stdout=subprocess.PIPE, text=True)
    time.sleep(2.5)
    watch.terminate()
    check("status --watch says it again every second", 2 <= watch.communicate()[0].count("WORKER") <= 4)

    worker("stranger", *joined, "--curve-key", stranger_key)
    check("one whose key is not listed is refused, and the router's log names the key",
          wait(lambda: re.search(r"curve\.refused.*" + re.escape(stranger_public), log("router"))), log("router"))
    worker("keyless", "--router", endpoint)
    worker("wrong", "--router", endpoint, "--curve-key", one_key, "--curve-server", stranger_public)
    time.sleep(1.5)
    check("without a key, or with another's, none is let in", workers() == {"one": "north"}, workers())
    check("a refused worker that tries again and again fills no log", log("router").count(stranger_public) <= 2, log("router"))

    # The local side takes no keys: status has just been asked over it. A lost router is found again.
    router.send_signal(signal.SIGKILL)
    router.wait()
    daemon("router", "router", "--workers-bind", endpoint, "--curve-key", router_key, "--curve-allow", one_key + ".pub")
    check("a router that comes again finds its worker within 5 s", wait(lambda: workers() == {"one": "north"}, 5), workers())


if __name__ == "__main__":
    try:
        main()
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
    raise SystemExit(1 if failures else 0)
