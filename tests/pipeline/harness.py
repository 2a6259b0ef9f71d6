"""Starts the real pipeline (examples/pipeline.sh) for a test, and talks to it with nothing but the standard library."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SKIPPED = 77
BIN = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin")
MODEL = os.environ.get("PARLEY_MODEL") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf")
failures = []  # the sentences that check() found to be false


def skip(why):
    print("SKIPPED:", why)
    sys.exit(SKIPPED)


def need_model():
    if not os.path.isfile(MODEL):
        skip("no model at " + MODEL)


def check(sentence, truth, seen=None):
    print(("ok   " if truth else "FAIL ") + sentence + ("" if truth else f": saw {seen!r}"), flush=True)
    if not truth:
        failures.append(sentence)


class Pipeline:
    """One pipeline on a state folder of its own. Use it as a context manager."""

    def __init__(self, **environment):
        self.state = environment.pop("PARLEY_STATE", None) or tempfile.mkdtemp(prefix="parley-test-")
        env = dict(os.environ, PARLEY_STATE=self.state, **{k: str(v) for k, v in environment.items()})
        self.stderr = open(os.path.join(self.state, "pipeline.err"), "w")
        self.process = subprocess.Popen(["bash", os.path.join(ROOT, "examples", "pipeline.sh")], env=env,
                                        stdout=subprocess.PIPE, stderr=self.stderr, text=True, start_new_session=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError("the pipeline did not start: " + open(self.stderr.name).read()[-3000:] + self.logs())
        self.info = json.loads(line)
        self.host, port = self.info["url"].removeprefix("http://").split(":")
        self.port = int(port)
        self.key = self.info["api_key"]
        self.model = self.info["model"]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.logs())
        self.stop()

    def stop(self):
        """Drains; returns the exit status and the seconds it took."""
        start = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self.stderr.close()
        return self.process.returncode, time.monotonic() - start

    def logs(self, lines=25):
        out = []
        folder = os.path.join(self.state, "log")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            with open(os.path.join(folder, name), errors="replace") as log:
                out.append(f"--- {name}\n" + "".join(log.readlines()[-lines:]))
        return "\n" + "\n".join(out)

    def pid(self, name):
        with open(os.path.join(self.state, "run", name + ".pid")) as file:
            return int(file.read())

    def kill(self, name, number=signal.SIGKILL):
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def wait_restarted(self, name, old_pid, limit=5):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                pid = self.pid(name)
                if pid != old_pid:
                    os.kill(pid, 0)
                    return pid
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        raise AssertionError(f"{name} was not started again within {limit} s")

    def wait_ready(self, limit=10):
        start = time.monotonic()
        while time.monotonic() - start < limit:
            try:
                if self.request("GET", "/readyz", timeout=2)[0] == 200:
                    return time.monotonic() - start
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready within {limit} s" + self.logs())

    def headers(self, extra=None):
        return {"x-api-key": self.key, "anthropic-version": "2023-06-01", "content-type": "application/json", **(extra or {})}

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, parsed JSON or bytes)"""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
            connection.request(method, path, data, self.headers() if headers is None else headers)
            response = connection.getresponse()
            raw = response.read()
            named = {k.lower(): v for k, v in response.getheaders()}
            parsed = json.loads(raw) if named.get("content-type", "").startswith("application/json") and raw else raw
            return response.status, named, parsed
        finally:
            connection.close()

    def convstore(self, *arguments, stdin="", good=True):
        """convstore on this state; what it printed: its output where it is good, else what it says of why not."""
        done = subprocess.run([os.path.join(BIN, "convstore"), *arguments], env=dict(os.environ, PARLEY_STATE=self.state), input=stdin,
                              capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) == good, done
        return done.stdout if good else done.stdout + done.stderr

    def body(self, text, **members):
        return {"model": self.model, "max_tokens": 64, "temperature": 0,
                "messages": [{"role": "user", "content": text}], **members}

    def message(self, text, **members):
        return self.request("POST", "/v1/messages", self.body(text, **members))

    def stream(self, path, body, headers=None, timeout=60, on_event=None):
        """A Stream that has been read to its end."""
        return Stream(self, path, body, headers, timeout).read(on_event)


class Stream:
    """One SSE answer. `end` is how it ended: done, error, refused (HTTP status), cut (no proper end)."""

    def __init__(self, pipeline, path, body, headers=None, timeout=60, method="POST"):
        self.connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=timeout)
        self.events = []
        self.comments = []
        self.text = ""
        self.end = None
        self.error = None
        self.status = None
        try:
            data = None if body is None else json.dumps(body)
            self.connection.request(method, path, data, pipeline.headers() if headers is None else headers)
            self.response = self.connection.getresponse()
            self.status = self.response.status
            if self.status != 200:
                raw = self.response.read()
                self.end = "refused"
                self.error = json.loads(raw) if raw else None
        except OSError as error:
            self.end = "cut"
            self.error = repr(error)

    def read(self, on_event=None):
        if self.end:
            return self
        name = data = ident = None
        try:
            for raw in self.response:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = line[6:]
                elif line.startswith("id: "):
                    ident = line[4:]
                elif line.startswith(":"):
                    self.comments.append(line)
                elif line == "" and data is not None:
                    event = json.loads(data)
                    assert event["type"] == name, (event, name)
                    self.events.append((ident, event))
                    if event["type"] == "content_block_delta":
                        self.text += event["delta"].get("text", "")
                    if event["type"] == "snapshot":
                        self.text = "".join(b.get("text", "") for b in event["message"]["content"])
                    if event["type"] == "error":
                        self.error = event["error"]
                    if on_event:
                        on_event(self, event)
                    name = data = ident = None
        except (OSError, http.client.HTTPException) as error:
            self.end = "cut"
            self.error = repr(error)
        types = self.types()
        if self.end is None:
            self.end = "done" if "message_stop" in types else "error" if self.error else "cut"
        self.connection.close()
        return self

    def types(self):
        return [event["type"] for _, event in self.events if event["type"] != "ping"]

    def stop_reason(self):
        for _, event in self.events:
            if event["type"] == "message_delta":
                return event["delta"]["stop_reason"]
        return None

    def close(self):
        self.connection.close()


def check_grammar(types):
    """The Messages API's grammar of a whole answer."""
    at = 0
    assert types[at] == "message_start", types
    at += 1
    while types[at] == "content_block_start":
        at += 1
        while types[at] == "content_block_delta":
            at += 1
        assert types[at] == "content_block_stop", types
        at += 1
    assert types[at:] == ["message_delta", "message_stop"], types[at:]


def in_threads(count, call):
    """Runs call(i) in `count` threads; returns the results in order."""
    results = [None] * count

    def run(i):
        results[i] = call(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def until(what, limit=15):
    """Whether what() comes true within `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return False


def uncut_texts(pipeline, body, count):
    """The texts of `count` answers that nobody disturbs; body(i) is the request of one."""
    streams = in_threads(count, lambda i: pipeline.stream("/v1/messages", body(i), timeout=120))
    for stream in streams:
        assert stream.end == "done", (stream.end, stream.error)
    return [stream.text for stream in streams]


def disturbed(pipeline, body, uncut, disturb):
    """Calls disturb() while as many answers run as `uncut` has texts: each has to be whole, by the grammar, and the uncut one.
    Returns the longest pause between two events of any, from the disturbance on."""
    begun = threading.Barrier(len(uncut) + 1)
    pauses = [0.0] * len(uncut)

    def one(i):
        last = [time.monotonic()]

        def on_event(stream, event):
            if event["type"] != "ping":
                now = time.monotonic()
                pauses[i] = max(pauses[i], now - last[0])
                last[0] = now
            if len(stream.events) == 12:
                begun.wait(60)
                pauses[i], last[0] = 0.0, time.monotonic()

        return pipeline.stream("/v1/messages", body(i), timeout=120, on_event=on_event)

    disturber = threading.Thread(target=lambda: (begun.wait(60), disturb()))
    disturber.start()
    streams = in_threads(len(uncut), one)
    disturber.join()
    for i, stream in enumerate(streams):
        assert stream.end == "done", (i, stream.end, stream.error)
        check_grammar(stream.types())
        assert stream.text == uncut[i], f"stream {i} is not the uncut one"
    return max(pauses)


def run_tests(namespace):
    """Runs every test_* of a module, each named by its first doc line; exits non-zero when one fails."""
    import traceback

    failed = 0
    only = sys.argv[1:]
    for name, test in list(namespace.items()):
        if not name.startswith("test_") or (only and name not in only):
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok    {name} ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    sys.exit(1 if failed or failures else 0)
