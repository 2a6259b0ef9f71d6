#!/usr/bin/env python3
"""Several chatd at one address: an upgrade that hands the socket over, one that is killed, a socket that is held for them. Simulated worker."""
import http.client
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import threading
import time

from harness import BIN, Pipeline, run_tests

STREAMS = 200
TOKENS = 150
pipeline = Pipeline(PARLEY_MODEL="/none", PARLEY_SIMULATE="--simulate-speed=4 --simulate-tokens=0 --slots-max=512 --kv-blocks=100000")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Front:
    """A chatd of our own on the pipeline's state."""

    count = 0

    def __init__(self, port, *args, fds=()):
        Front.count += 1
        self.log = os.path.join(pipeline.state, "log", f"front-{Front.count}.log")
        command = [os.path.join(BIN, "chatd"), "serve", "--bind", f"127.0.0.1:{port}", *args]
        if fds:  # as systemd does it: the socket is descriptor 3, LISTEN_PID the process itself
            command = ["bash", "-c", f"exec 3<&{fds[0]}; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"", "-", *command]
        self.process = subprocess.Popen(command, env=dict(os.environ, PARLEY_STATE=pipeline.state), pass_fds=fds,
                                        stdout=subprocess.DEVNULL, stderr=open(self.log, "w"))
        self.host, self.port = "127.0.0.1", port
        self.headers = pipeline.headers

    def text(self):
        with open(self.log) as file:
            return file.read()

    def wait(self, word, limit=15):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if word in self.text():
                return self
            time.sleep(0.02)
        raise AssertionError(f"no {word} within {limit} s: {self.text()}")

    def ready(self, limit=15):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                if Pipeline.request(self, "GET", "/readyz", timeout=2)[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("not ready: " + self.text())

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Streams:
    """Many answers, read by one thread."""

    def __init__(self, port, count, key=None, tokens=TOKENS):
        body = json.dumps(pipeline.body("Tell me.", max_tokens=tokens, stream=True)).encode()
        head = (f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {key or pipeline.key}\r\nanthropic-version: 2023-06-01\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode()
        self.tokens, self.got = tokens, [b""] * count
        self.sockets = []
        for _ in range(count):
            s = socket.create_connection(("127.0.0.1", port), timeout=20)
            s.sendall(head + body)
            s.setblocking(False)
            self.sockets.append(s)
        self.over = 0
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        with selectors.DefaultSelector() as selector:
            for i, s in enumerate(self.sockets):
                selector.register(s, selectors.EVENT_READ, i)
            while self.over < len(self.sockets):
                for ready, _ in selector.select(30):
                    i = ready.data
                    try:
                        data = ready.fileobj.recv(65536)
                    except OSError:
                        data = b""
                    self.got[i] += data
                    if not data or self.got[i].endswith(b"0\r\n\r\n"):
                        selector.unregister(ready.fileobj)
                        ready.fileobj.close()
                        self.over += 1

    def wait_live(self, limit=30):
        end = time.monotonic() + limit
        while sum(b"content_block_delta" in g for g in self.got) < len(self.got):
            assert time.monotonic() < end, sum(b"content_block_delta" in g for g in self.got)
            time.sleep(0.02)
        assert not any(b"message_stop" in g for g in self.got), "streams ended before the test began"

    def whole(self):
        """How many ended with all that belongs to an answer, the same text each, to the last token."""
        return sum(g.startswith(b"HTTP/1.1 200") and b'"type":"message_stop"' in g and g.endswith(b"0\r\n\r\n")
                   and b'"output_tokens":%d' % self.tokens in g and b"event: error" not in g for g in self.got)


class Probe:
    """New connections, one after the other, all the time: what did they meet?"""

    def __init__(self, port):
        self.port, self.stop_now, self.bad, self.good = port, False, [], 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop_now:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/v1/models", headers={"x-api-key": pipeline.key})
                status = connection.getresponse().status
                connection.close()
                if status == 200:
                    self.good += 1
                else:
                    self.bad.append(status)
            except (OSError, http.client.HTTPException) as error:
                self.bad.append(repr(error))

    def end(self):
        self.stop_now = True
        self.thread.join()
        return self


def test_an_upgrade_cuts_no_stream_and_refuses_no_connection():
    port = free_port()
    old = Front(port, "--take-over").ready()  # nobody before it: it listens as ever
    probe = Probe(port)
    new = None
    try:
        streams = Streams(port, STREAMS)
        streams.wait_live()
        new = Front(port, "--take-over").wait("chatd.took_over")
        assert "predecessor=drains" in new.text(), new.text()
        assert old.process.poll() is None and streams.over < STREAMS
        old.process.send_signal(signal.SIGTERM)  # what a service manager would do now changes nothing
        later = Streams(port, 5)
        streams.thread.join(60)
        assert streams.whole() == STREAMS, (streams.whole(), [g[-300:] for g in streams.got if b"message_stop" not in g][:3], old.text()[-500:])
        assert old.process.wait(15) == 0, old.text()[-1000:]
        later.thread.join(60)
        assert later.whole() == 5, later.got
        probe.end()
        assert not probe.bad and probe.good > 20, (probe.bad[:5], probe.good)
        left = [n for n in os.listdir(pipeline.state + "/run") if n.endswith(".listen")]
        assert len(left) == 2, left  # the new one, and the pipeline's own
    finally:
        probe.end()
        for front in (old, new):
            if front:
                front.stop()


def test_a_successor_that_dies_before_it_is_ready_changes_nothing():
    port = free_port()
    front = Front(port).ready()
    try:
        boot = re.search(r"boot=(\w+)", front.text())[1]
        path = f"{pipeline.state}/run/chatd-{boot}.listen"
        assert os.stat(path).st_mode & 0o777 == 0o600
        for words, answer in ((b"take 127.0.0.1:1", b"no"), (b"go", b"no"), (b"\0" * 400, b"no"), (b"take 127.0.0.1:%d" % port, b"ok")):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.settimeout(5)
                s.connect(path)
                s.send(words)
                got, fds, _, _ = socket.recv_fds(s, 512, 4)
                assert got == answer and len(fds) == (answer == b"ok"), (words, got, fds)
                for fd in fds:
                    os.close(fd)
        assert front.ready(2) and "chatd.drain" not in front.text()
    finally:
        front.stop()


def test_one_of_two_on_one_port_is_killed_under_200_streams_and_limits_stay_exact():
    port = free_port()
    fronts = [Front(port, "--reuse-port").wait("chatd.ready"), Front(port, "--reuse-port").wait("chatd.ready")]
    alone = Front(port)  # without saying so, nobody shares
    try:
        assert alone.process.wait(10) != 0 and "in use" in alone.text().lower(), alone.text()
        made = subprocess.run([os.path.join(BIN, "convstore"), "key", "create", "--org", "pipeline", "--json", "--limits",
                               json.dumps({"concurrent": STREAMS})], env=dict(os.environ, PARLEY_STATE=pipeline.state), capture_output=True, text=True)
        key = json.loads(made.stdout)["key"]
        for front in fronts:
            front.ready()
        streams = Streams(port, STREAMS, key, 300)
        streams.wait_live()

        def ask():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/v1/messages", json.dumps(pipeline.body("Yes?", max_tokens=1)),
                               {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"})
            return connection.getresponse().status

        assert [ask() for _ in range(6)] == [429] * 6  # 200 of 200, counted over both
        fronts[0].process.kill()
        fronts[0].process.wait()
        streams.thread.join(60)
        whole, cut = streams.whole(), sum(b"message_stop" not in g for g in streams.got)
        assert whole + cut == STREAMS and 20 < whole < STREAMS - 20, (whole, cut)
        end = time.monotonic() + 5
        while ask() != 200:  # the dead one's reservations come back, once it is known to be dead
            assert time.monotonic() < end
            time.sleep(0.1)
        again = Streams(port, STREAMS, key, 300)
        again.wait_live()
        assert [ask() for _ in range(3)] == [429] * 3
        for s in again.sockets:
            s.shutdown(socket.SHUT_RDWR)
    finally:
        for front in (*fronts, alone):
            front.stop()


def test_a_socket_that_the_service_manager_holds_outlives_the_server():
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port = listener.getsockname()[1]
    first = Front(port, fds=(listener.fileno(),)).ready()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(20) == 0
    waiting = socket.create_connection(("127.0.0.1", port), timeout=20)  # nobody serves, and nobody refuses
    waiting.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    second = Front(port, fds=(listener.fileno(),)).wait("chatd.ready")
    try:
        assert waiting.recv(100).startswith(b"HTTP/1.1 200"), second.text()
    finally:
        second.stop()
    wide = socket.create_server(("0.0.0.0", 0))
    refused = Front(port, "--no-auth", fds=(wide.fileno(),))
    assert refused.process.wait(10) != 0 and "loopback only" in refused.text(), refused.text()


if __name__ == "__main__":
    try:
        pipeline.wait_ready()
        run_tests(globals())
    finally:
        pipeline.stop()
