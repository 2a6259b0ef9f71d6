"""Many live readers of many answers: each gets every byte; readers that stop reading cost a bounded memory, and nothing to the others;
and what they missed they get when they come back. A simulated worker; PARLEY_ANSWERS and PARLEY_READERS set the size."""

import json
import os
import selectors
import socket
import threading
import time

from harness import Pipeline, Stream, in_threads, run_tests

ANSWERS = int(os.environ.get("PARLEY_ANSWERS", "10"))  # tests/long.sh readers: 50 answers, 1,000 readers
READERS = int(os.environ.get("PARLEY_READERS", "200"))  # of all answers together
TOKENS = 400
LONG_TOKENS = 3000
STOPPED = 24  # readers of the long answer that never read
KIB_PER_STOPPED_READER = 128  # chatd's --client-buffer of 64, and what a connection costs

pipeline = Pipeline(PARLEY_MODEL="/no/such/model.gguf", PARLEY_NOTIFY="no", CHATD_TITLES="off", CHATD_CONNECTIONS_PER_ADDRESS=0,
                    PARLEY_SIMULATE="--simulate-step-us=1500 --simulate-tokens=0 --slots-max=256 --kv-blocks=100000")


class Device:
    """A socket that reads one answer; all of them are served by one thread."""

    def __init__(self, path, mid, stopped=False, place=None):
        self.mid, self.raw, self.done = mid, b"", False
        self.socket = socket.socket()
        if stopped:
            # Small segments: on the loopback's of 64 KiB the kernel alone would buffer megabytes.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((pipeline.host, pipeline.port))
        more = f"last-event-id: {place}\r\n" if place else ""
        self.socket.sendall((f"GET {path}/{mid}/stream HTTP/1.1\r\nhost: x\r\nx-api-key: {pipeline.key}\r\n"
                             f"anthropic-version: 2023-06-01\r\nconnection: close\r\n{more}\r\n").encode())
        self.socket.setblocking(False)

    def take(self):
        """False at the end."""
        try:
            piece = self.socket.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            piece = b""
        self.raw += piece
        self.done = not piece
        return bool(piece)

    def text(self, text=b""):
        """What it shows after `text`, its place, and whether the answer was ended; pieces by their offsets."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        if b"chunked" in head.lower():
            whole = b""
            while body:
                size, _, body = body.partition(b"\r\n")
                if not size or not int(size, 16):
                    break
                whole, body = whole + body[:int(size, 16)], body[int(size, 16) + 2:]
            body = whole
        place, ended = None, False
        for block in body.split(b"\n\n")[:-1]:
            lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" not in lines:
                continue
            event = json.loads(lines[b"data"])
            place = lines.get(b"id", b"").decode() or place
            if event["type"] == "content_block_delta":
                assert event["offset"] <= len(text), "a hole"
                text = text[:event["offset"]] + event["delta"]["text"].encode()
            elif event["type"] == "snapshot":
                text = "".join(part["text"] for part in event["message"]["content"]).encode()
            ended = ended or event["type"] == "message_stop"
        return text, place, ended


def memory_kib():
    with open(f"/proc/{pipeline.pid('chatd')}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def unsent(port):
    """Bytes that the kernel holds for the client at `port`."""
    with open("/proc/net/tcp") as file:
        for line in file.readlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{pipeline.port:04X}") and fields[2].endswith(f":{port:04X}"):
                return int(fields[4].split(":")[0], 16)
    return 0


def begin(tokens=TOKENS):
    """An answer that runs: (its messages' path, its id, the thread that reads it, what it has read)."""
    path = f"/v1/conversations/{pipeline.request('POST', '/v1/conversations', {})[2]['id']}/messages"
    stream = Stream(pipeline, path, {"content": "Tell me a story.", "stream": True, "max_tokens": tokens}, timeout=120)
    assert stream.status == 200, stream.error
    begun = threading.Event()
    thread = threading.Thread(target=stream.read, args=(lambda *_: begun.set(),), daemon=True)
    thread.start()
    assert begun.wait(30)
    return path, stream.events[0][1]["message"]["id"], thread, stream


def read_all(devices, limit=120):
    selector = selectors.DefaultSelector()
    for device in devices:
        selector.register(device.socket, selectors.EVENT_READ, device)
    left, end = len(devices), time.monotonic() + limit
    while left and time.monotonic() < end:
        for key, _ in selector.select(1):
            if not key.data.take():
                selector.unregister(key.fileobj)
                key.fileobj.close()
                left -= 1
    assert not left, f"{left} of {len(devices)} readers wait for ever" + pipeline.logs(5)


def stored(path, mid):
    row = pipeline.request("GET", f"{path}/{mid}")[2]
    assert row["status"] == "done", row
    return "".join(part["text"] for part in row["content"]).encode()


def test_every_reader_gets_every_byte():
    answers = in_threads(ANSWERS, lambda _: begin())
    devices = [(path, mid, Device(path, mid)) for path, mid, *_ in (answers[n % ANSWERS] for n in range(READERS))]
    begun = time.monotonic()
    read_all([device for *_, device in devices])
    took = time.monotonic() - begun
    texts = {}
    for path, mid, thread, stream in answers:
        thread.join(30)
        texts[mid] = stored(path, mid)
        assert stream.end == "done" and stream.text.encode() == texts[mid]
        assert len(texts[mid]) > TOKENS, "an answer of some length"
    for path, mid, device in devices:
        text, _, ended = device.text()
        assert ended and text == texts[mid], f"a reader of {mid} has {len(text)} of {len(texts[mid])} bytes"
    print(f"      {len(devices)} readers of {ANSWERS} answers whole within {took:.1f} s")


def test_readers_that_stop_cost_a_bound_and_lose_nothing():
    path, mid, thread, stream = begin(LONG_TOKENS)
    before = memory_kib()
    stopped = [Device(path, mid, stopped=True) for _ in range(STOPPED)]
    reader = Device(path, mid)
    read_all([reader])
    thread.join(60)
    grown = memory_kib() - before
    queued = max(unsent(device.socket.getsockname()[1]) for device in stopped)
    whole = stored(path, mid)
    text, _, ended = reader.text()
    assert ended and text == whole == stream.text.encode(), "beside them, one that reads has it all"
    size = len(reader.raw)
    assert queued < size // 2, f"the kernel took {queued} of {size} bytes: nothing was held back"
    # The stream itself keeps its events, once for all readers.
    assert STOPPED * (size - queued) // 1024 > 1.5 * (STOPPED * KIB_PER_STOPPED_READER + 2 * size // 1024), "the bound tells held back from kept"
    assert grown < STOPPED * KIB_PER_STOPPED_READER + 2 * size // 1024, f"{grown} KiB for {STOPPED} stopped readers"
    # They read on: what is there first, then from where they are.
    read_all([device for device in stopped])
    back = 0
    for device in stopped:
        text, place, ended = device.text()
        assert whole.startswith(text)
        if not ended:
            back += 1
            again = Device(path, mid, place=place)
            read_all([again])
            text, _, ended = again.text(text)
        assert ended and text == whole, f"a reader that came back has {len(text)} of {len(whole)} bytes"
    print(f"      chatd grew by {grown / 1024:.1f} MiB for {STOPPED} readers that stopped before {size / 1024:.0f} KiB each ({queued / 1024:.0f} KiB in the kernel); {back} had to come back")


if __name__ == "__main__":
    with pipeline:
        run_tests(globals())
