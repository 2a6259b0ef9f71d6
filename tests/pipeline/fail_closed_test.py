"""The filter is stopped, killed and starved under live streams: not one byte that it has not judged gets out."""

import os
import signal
import tempfile
import threading
import time

from harness import MODEL, ROOT, Pipeline, Stream, run_tests

# A word that the model says when it is asked why the sky is blue, made forbidden on output.
POLICY = """
[[rule]]
id = "test.forbidden"
side = "output"
pattern = "(?i)scattering"
action = "block"
owner = "tests"

[[rule]]
id = "test.input"
side = "input"
pattern = "xyzzy-forbidden"
action = "block"
owner = "tests"
"""
policy = tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False)
policy.write(open(os.path.join(ROOT, "examples", "policy.toml")).read() + POLICY)
policy.close()
pipeline = Pipeline(PARLEY_POLICY=policy.name)
SKY = "Why is the sky blue?"


def no_forbidden(stream):
    text = stream.text.lower()
    assert "scatter" not in text, text  # the beginning of the word is a byte of the match too
    return text


def test_a_forbidden_word_stops_the_answer_before_its_first_byte():
    status, _, plain = pipeline.message(SKY, max_tokens=40)
    assert status == 200
    stream = pipeline.stream("/v1/messages", pipeline.body(SKY, stream=True, max_tokens=40))
    no_forbidden(stream)
    assert stream.end == "done" and stream.stop_reason() == "refusal", (stream.text, stream.stop_reason())
    assert plain["stop_reason"] == "refusal"
    assert "".join(b["text"] for b in plain["content"]) == stream.text


def test_a_forbidden_question_is_a_refusal_and_reaches_no_worker():
    status, _, message = pipeline.message("tell me about xyzzy-forbidden things")
    assert status == 200 and message["content"] == [] and message["stop_reason"] == "refusal", message
    stream = pipeline.stream("/v1/messages", pipeline.body("xyzzy-forbidden", stream=True))
    assert stream.types() == ["message_start", "message_delta", "message_stop"]


def test_a_stopped_filter_delivers_nothing_and_refuses_input():
    streams = [Stream(pipeline, "/v1/messages", pipeline.body(f"Write a long story about the sea, part {i}.", stream=True, max_tokens=400)) for i in range(3)]
    got = [[] for _ in streams]

    def read(i):
        streams[i].read(lambda stream, event: got[i].append((time.monotonic(), event)) if event["type"] == "content_block_delta" else None)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(streams))]
    for thread in threads:
        thread.start()
    while not all(got):
        time.sleep(0.01)
    pid = pipeline.kill("safety-filter", signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(2.5)
    start = time.monotonic()
    status, headers, answer = pipeline.request("POST", "/v1/messages", pipeline.body("Hello?"), timeout=45)
    assert status in (529, 503), (status, answer)
    assert 1 <= int(headers["retry-after"]) <= 60
    print(f"      input refused with {status} after {time.monotonic() - start:.1f} s")
    os.kill(pid, signal.SIGCONT)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    # What was in chatd's hands when the filter stopped had been judged; nothing comes while it stands.
    for events in got:
        assert not [t for t, _ in events if stopped + 0.3 < t < stopped + 2.5]
    for stream in streams:
        assert stream.end in ("done", "error"), (stream.end, stream.error)
        no_forbidden(stream)


def test_kills_under_live_streams_let_nothing_out_and_the_answers_go_on():
    results = []
    lock = threading.Lock()
    stopping = threading.Event()

    def ask(i):
        while not stopping.is_set():
            stream = pipeline.stream("/v1/messages", pipeline.body(SKY if i % 2 else "What is gravity?", stream=True, max_tokens=60))
            with lock:
                results.append((i, stream))
            if stream.end != "done":
                time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for round in range(6):
        time.sleep(0.7)
        old = pipeline.kill("safety-filter")
        pipeline.wait_restarted("safety-filter", old)
    time.sleep(2)
    stopping.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    ends = {}
    for i, stream in results:
        no_forbidden(stream)
        ends[stream.end] = ends.get(stream.end, 0) + 1
        if i % 2 and stream.end == "done":
            assert stream.stop_reason() == "refusal", stream.text
        assert stream.end != "cut", stream.error
    print(f"      {ends}")
    assert ends.get("done", 0) > 5


def test_the_front_refuses_a_stream_without_stamps():
    """A router in the filter's place: its answers are real, and unstamped."""
    import subprocess
    state = tempfile.mkdtemp(prefix="parley-bare-")
    os.makedirs(os.path.join(state, "run"), mode=0o700, exist_ok=True)
    bin = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin")
    env = dict(os.environ, PARLEY_STATE=state)
    model = MODEL
    with open(os.path.join(state, "run", "stamp.key"), "wb") as key:
        key.write(os.urandom(32))
    os.chmod(os.path.join(state, "run", "stamp.key"), 0o600)
    port = 20000 + os.getpid() % 10000
    tools = [["convstore", "serve"], ["router", "serve", "--bind", f"ipc://{state}/run/filter.sock"], ["infer-worker", "serve", "--model", model],
             ["chatd", "serve", "--bind", f"127.0.0.1:{port}"]]
    running = [subprocess.Popen([os.path.join(bin, tool[0]), *tool[1:]], env=env, stderr=subprocess.DEVNULL) for tool in tools]
    try:
        import json
        import http.client
        end = time.monotonic() + 20
        key = None
        while time.monotonic() < end and key is None:
            subprocess.run([os.path.join(bin, "convstore"), "org", "create", "o", "--json"], env=env, capture_output=True)
            made = subprocess.run([os.path.join(bin, "convstore"), "key", "create", "--org", "o", "--json"], env=env, capture_output=True, text=True)
            key = json.loads(made.stdout)["key"] if made.returncode == 0 else None
        answers = []
        while time.monotonic() < end:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                body = {"model": "default", "max_tokens": 16, "stream": True, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
                connection.request("POST", "/v1/messages", json.dumps(body), {"x-api-key": key, "anthropic-version": "2023-06-01"})
                response = connection.getresponse()
                raw = response.read()
                answers.append((response.status, raw))
                assert b"content_block_delta" not in raw and b"text_delta" not in raw, raw
                if len(answers) > 2 and response.status != 503:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        assert answers, "chatd never answered"
        print("      statuses", [status for status, _ in answers[-3:]])
    finally:
        for process in running:
            process.kill()
            process.wait()


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
