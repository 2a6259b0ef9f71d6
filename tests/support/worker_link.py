"""A worker with an own front, spoken to in parley/1 over ZMTP 3.0 with nothing but the standard library.

    with Worker(binary, "--model", path) as worker:
        worker.ask("req_1", {"model": "m", "max_tokens": 9, "messages": [...]})
        for message in worker.messages(seconds=5): ...   # (verb, id, meta, body), STATUS too
"""

import json
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time


class Worker:
    """One process, one connection. `times` holds when each STATUS came (time.monotonic())."""

    def __init__(self, binary, *arguments, credit=1_000_000):
        self.folder = tempfile.mkdtemp(prefix="parley-worker-")
        self.path = os.path.join(self.folder, "front.sock")
        self.credit = credit
        self.times = []
        self.buffer = bytearray()
        self.parts = []
        self.log = open(os.path.join(self.folder, "log"), "w+")
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(os.path.join(self.folder, "notify"))
        notify.settimeout(0.2)
        started = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "serve", "--bind", "ipc://" + self.path, "--state", self.folder, *arguments], stderr=self.log,
            env=dict(os.environ, NOTIFY_SOCKET=os.path.join(self.folder, "notify")))
        try:
            while not self.said_ready(notify):
                if self.process.poll() is not None or time.monotonic() - started > 60:
                    self.log.seek(0)
                    raise RuntimeError("the worker did not start: " + self.log.read()[-2000:])
            self.ready_s = time.monotonic() - started
            notify.close()
            self.connect()
        except Exception:
            self.stop()
            raise

    @staticmethod
    def said_ready(notify):
        try:
            return b"READY=1" in notify.recv(4096)
        except TimeoutError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            self.log.seek(0)
            print(self.log.read()[-3000:])
        self.stop()

    def stop(self):
        """Ends it by SIGTERM; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.process.returncode

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # ZMTP: greeting, READY, then frames of flags (1 more, 2 long, 4 command), size and bytes.
    def connect(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(self.path)
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        greeting = b""
        while len(greeting) < 64:
            greeting += self.socket.recv(64 - len(greeting))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        self.socket.sendall(bytes([4, len(ready)]) + ready)
        self.say("HELLO", "", {"role": "asker", "name": "test", "boot": "01" + "0" * 24, "version": "0"})
        end = time.monotonic() + 10
        while self.next(end)[0] != "HELLO":
            pass

    def say(self, verb, request, meta, body=b""):
        frames = [b"parley/1", verb.encode(), request.encode(), json.dumps(meta).encode(), body]
        out = b""
        for i, frame in enumerate(frames):
            more = 1 if i + 1 < len(frames) else 0
            size = bytes([more, len(frame)]) if len(frame) < 256 else bytes([2 | more]) + struct.pack(">Q", len(frame))
            out += size + frame
        self.socket.sendall(out)

    def frame(self):
        """(flags, bytes), or None while there is no whole one."""
        data = self.buffer
        if len(data) < 2:
            return None
        flags, at, size = data[0], 2, data[1]
        if flags & 2:
            if len(data) < 9:
                return None
            at, size = 9, struct.unpack(">Q", data[1:9])[0]
        if len(data) < at + size:
            return None
        body = bytes(data[at:at + size])
        del data[:at + size]
        return flags, body

    def next(self, end):
        """The next message; TimeoutError after time.monotonic() == end."""
        while True:
            while (got := self.frame()) is not None:
                flags, body = got
                if flags & 4:
                    if body.startswith(b"\x04PING"):
                        pong = b"\x04PONG" + body[7:]
                        self.socket.sendall(bytes([4, len(pong)]) + pong)
                    continue
                self.parts.append(body)
                if flags & 1:
                    continue
                _, verb, request, meta, body = self.parts
                self.parts = []
                if verb == b"STATUS":
                    self.times.append(time.monotonic())
                return verb.decode(), request.decode(), json.loads(meta or b"{}"), body
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the worker closed the connection")
            self.buffer += data

    def messages(self, seconds):
        end = time.monotonic() + seconds
        while True:
            try:
                yield self.next(end)
            except TimeoutError:
                return

    def ask(self, request, body, **envelope):
        self.say("ASK", request, {"attempt": 1, "credit": self.credit, **envelope}, json.dumps(body).encode())

    def cancel(self, request):
        self.say("CANCEL", request, {"attempt": 1})
