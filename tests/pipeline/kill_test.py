"""kill -9 of each tool in turn, under load: the pipeline is whole again within two seconds of the restart, every
request ends in exactly one way, every acknowledged message is in the store, and greedy answers are the uncut ones."""

import threading
import time
import uuid

from harness import Pipeline, run_tests

PROMPTS = ["Why is the sky blue?", "What is gravity?", "Explain in one sentence what a computer is.", "Name three colors."]
pipeline = Pipeline(PARLEY_WORKERS=2)
uncut = {}


class Load:
    """Clients that ask over and over until told to stop, and remember how each request ended."""

    def __init__(self, streams=6, senders=3):
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.ends = []  # (kind, end, detail, text ok)
        self.accepted = {}  # message id → (conversation path, text)
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(streams)]
        self.threads += [threading.Thread(target=self.send, args=(i,)) for i in range(senders)]
        for thread in self.threads:
            thread.start()

    def note(self, kind, stream, good=None):
        with self.lock:
            self.ends.append((kind, stream.end, stream.error, good))

    def ask(self, i):
        while not self.stopping.is_set():
            prompt = PROMPTS[i % len(PROMPTS)]
            stream = pipeline.stream("/v1/messages", pipeline.body(prompt, stream=True))
            same = stream.text == uncut[prompt] if stream.end == "done" else uncut[prompt].startswith(stream.text)
            self.note("stream", stream, same)
            if stream.end != "done":
                time.sleep(0.05)

    def send(self, i):
        path = None
        while not self.stopping.is_set():
            try:
                if path is None:
                    status, _, made = pipeline.request("POST", "/v1/conversations", {}, timeout=5)
                    if status != 201:
                        time.sleep(0.05)
                        continue
                    path = f"/v1/conversations/{made['id']}/messages"
                text = "Say hello. " + uuid.uuid4().hex

                def on_event(stream, event):
                    if event["type"] == "message_accepted":
                        with self.lock:
                            self.accepted[event["user_message"]["id"]] = (path, text)

                stream = pipeline.stream(path, {"content": text, "stream": True, "max_tokens": 24, "temperature": 0}, on_event=on_event)
                self.note("send", stream)
                if stream.end != "done":
                    path = None  # its answer may still run, or be interrupted: go on in another conversation
                    time.sleep(0.05)
            except OSError:
                path = None
                time.sleep(0.05)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hangs"


def whole_again(limit=10.0):
    """Seconds until a fresh request is answered in full."""
    start = time.monotonic()
    while time.monotonic() - start < limit:
        try:
            stream = pipeline.stream("/v1/messages", pipeline.body("Name three colors.", stream=True, max_tokens=4), timeout=15)
            if stream.end == "done":
                return time.monotonic() - start
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("not whole again" + pipeline.logs())


def kill_under_load(name, cut_allowed):
    load = Load()
    time.sleep(1.5)
    old = pipeline.kill(name)
    pipeline.wait_restarted(name, old, limit=2)
    seconds = whole_again()
    time.sleep(1.5)
    load.stop()
    ends = {}
    for kind, end, error, same in load.ends:
        ends[(kind, end)] = ends.get((kind, end), 0) + 1
        assert end != "cut" or cut_allowed, (kind, end, error)
        if end in ("error", "refused"):
            assert error, (kind, end)
        assert same is not False or kind != "stream", f"a greedy answer differs after the kill of {name}"
    print(f"      {name}: whole again {seconds * 1000:.0f} ms after its restart; ends {ends}")
    assert seconds < 2, f"{name}: {seconds:.2f} s"
    assert ends.get(("stream", "done"), 0) > 5
    lost = []
    pages = {}
    for ident, (path, text) in load.accepted.items():
        if path not in pages:
            pages[path] = pipeline.request("GET", path + "?order=asc&limit=200")[2]["data"]
        found = [m for m in pages[path] if m["id"] == ident]
        if len(found) != 1 or found[0]["content"] != [{"type": "text", "text": text}]:
            lost.append(ident)
    assert not lost, f"{len(lost)} of {len(load.accepted)} acknowledged messages are not in the store"
    assert load.accepted
    for page in pages.values():
        texts = [m["content"][0]["text"] for m in page if m["role"] == "user"]
        assert len(texts) == len(set(texts)), "a message is stored twice"
        ids = [m["id"] for m in page]
        assert ids == sorted(ids)


def test_a_quiet_run_gives_the_texts_to_compare_with():
    for prompt in PROMPTS:
        stream = pipeline.stream("/v1/messages", pipeline.body(prompt, stream=True))
        assert stream.end == "done" and stream.text
        uncut[prompt] = stream.text


def test_kill_of_a_worker():
    kill_under_load("infer-worker-0", cut_allowed=False)


def test_kill_of_the_router():
    kill_under_load("router", cut_allowed=False)


def test_kill_of_the_safety_filter():
    kill_under_load("safety-filter", cut_allowed=False)


def test_kill_of_convstore():
    kill_under_load("convstore", cut_allowed=False)


def test_kill_of_chatd():
    kill_under_load("chatd", cut_allowed=True)


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        status, seconds = pipeline.stop()
        print(f"drained in {seconds:.1f} s, exit status {status}")
