#!/usr/bin/env python3
"""A cut stream of /v1/messages goes on where it was, through any chatd; nobody else's does; and what nobody takes up is cancelled and its KV freed."""
import json
import os
import random
import re
import subprocess
import tempfile
import threading
import time
import urllib.request

from harness import ROOT, Pipeline, Stream, check_grammar, in_threads, run_tests

BIN = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin")
STORY = "Tell me a long story about a fox and a river."
pipeline = None


class Cut(Exception):
    pass


def cut_after(count):
    """Reads that many deltas."""
    seen = [0]

    def on_event(_, event):
        seen[0] += event["type"] == "content_block_delta"
        if seen[0] >= count:
            raise Cut
    return on_event


def begin(count, at=None, close=True, **members):
    body = pipeline.body(STORY, stream=True, **{"max_tokens": 120, **members})
    stream = Stream(at or pipeline, "/v1/messages", body, pipeline.headers())
    try:
        stream.read(cut_after(count))
        raise AssertionError(f"the answer was over before: {stream.end} {stream.error}")
    except Cut:
        pass
    if close:
        stream.response.close()
        stream.close()
    return stream, stream.events[0][1]["message"]["id"]


def resume(ident, headers=None, query="", at=None):
    return Stream(at or pipeline, f"/v1/messages/{ident}/stream{query}", None, pipeline.headers(headers), method="GET")


class Second:
    """Another chatd on the same state."""

    def __init__(self, *args):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([os.path.join(BIN, "chatd"), "serve", "--bind", "127.0.0.1:0", "--state", pipeline.state, *args], stderr=self.log)
        self.host, self.port, self.headers = pipeline.host, None, pipeline.headers
        until = time.monotonic() + 10
        while self.port is None and time.monotonic() < until:
            self.log.seek(0)
            found = re.search(r"event=chatd.ready url=http://[^:]+:(\d+)", self.log.read())
            self.port = int(found.group(1)) if found else None
            time.sleep(0.02)
        assert self.port
        while Pipeline.request(self, "GET", "/readyz", None, {})[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()


def whole_text(**members):
    return pipeline.stream("/v1/messages", pipeline.body(STORY, stream=True, **{"max_tokens": 120, **members})).text


def numbers(stream):
    return [ident for ident, event in stream.events if event["type"] != "ping"]


def together(first, rest, whole):
    assert rest.status == 200 and rest.end == "done", (rest.status, rest.end, rest.error)
    ids = numbers(first) + numbers(rest)
    assert ids == [f"1-{i}" for i in range(1, len(ids) + 1)], ids
    check_grammar(first.types() + rest.types())
    assert first.text + rest.text == whole, (first.text, rest.text, whole)


def test_the_exact_rest_comes_after_the_last_event_however_it_is_said():
    whole = whole_text()
    for say in ("header", "starting_after", "last_event_id", "number only"):
        stream, ident = begin(random.randrange(2, 30))
        place = stream.events[-1][0]
        if say == "header":
            rest = resume(ident, {"last-event-id": place})
        elif say == "number only":
            rest = resume(ident, query="?starting_after=" + place)
        else:
            rest = resume(ident, query=f"?{say}={place}")
        together(stream, rest.read(), whole)


def test_it_can_be_cut_again_and_again():
    whole = whole_text()
    stream, ident = begin(3)
    events, text = list(stream.events), stream.text
    for _ in range(8):
        part = resume(ident, {"last-event-id": events[-1][0]})
        try:
            part.read(cut_after(random.randrange(1, 12)))
        except Cut:
            part.response.close()
        events += part.events
        text += part.text
        if part.end == "done":
            break
    else:
        part = resume(ident, {"last-event-id": events[-1][0]}).read()
        events += part.events
        text += part.text
    ids = [ident for ident, event in events if event["type"] != "ping"]
    assert ids == [f"1-{i}" for i in range(1, len(ids) + 1)], ids
    assert text == whole


def test_a_finished_stream_is_there_for_the_grace_and_then_404():
    stream = pipeline.stream("/v1/messages", pipeline.body("Say yes.", stream=True, max_tokens=8))
    ident = stream.events[0][1]["message"]["id"]
    again = resume(ident).read()
    assert again.events == stream.events, (again.events, stream.events)
    end = resume(ident, {"last-event-id": numbers(stream)[-1]}).read()
    assert end.status == 200 and end.types() == [], end.events
    time.sleep(6)
    gone = resume(ident)
    assert gone.status == 404 and gone.error["error"]["type"] == "not_found_error", gone.error


def test_what_is_no_place_of_this_stream_is_404():
    stream, ident = begin(3, close=False)
    for place in ("1-99999", "2-3", "0-1", "x", "1-", "-3", "1-3-5", "1--1", "18446744073709551616-1"):
        got = resume(ident, {"last-event-id": place})
        assert got.status == 404, (place, got.status)
    for other in ("msg_" + "0" * 26, "nothing", "..", "%2e%2e%2f"):
        assert resume(other).status == 404, other
    assert resume(ident, {"x-api-key": ""}).status == 401
    assert resume(ident, {"x-user-id": "somebody else"}).status == 404, "another user's"
    made = subprocess.run([os.path.join(BIN, "convstore"), "org", "create", "strangers", "--json"], env=dict(os.environ, PARLEY_STATE=pipeline.state), check=True, capture_output=True)
    key = subprocess.run([os.path.join(BIN, "convstore"), "key", "create", "--org", "strangers"], env=dict(os.environ, PARLEY_STATE=pipeline.state), check=True, capture_output=True, text=True).stdout.strip()
    assert made and resume(ident, {"x-api-key": key}).status == 404, "another org's"
    assert stream.read().end == "done", "and nobody was disturbed"
    # No stream, nothing to resume.
    ident = pipeline.message("Say yes.", max_tokens=4)[2]["id"]
    assert resume(ident).status == 404


def test_a_stream_goes_on_through_another_chatd():
    second = Second()
    try:
        time.sleep(1.3)  # they have found each other
        whole = whole_text()
        stream, ident = begin(5)
        rest = resume(ident, {"last-event-id": stream.events[-1][0]}, at=second).read()
        together(stream, rest, whole)
        assert resume(ident, at=second).read().text == whole, "from the start, after its end"
        stream, ident = begin(5, at=second)
        together(stream, resume(ident, {"last-event-id": stream.events[-1][0]}).read(), whole)
        # Its place and its owner are asked for just as strictly.
        stream, ident = begin(3, at=second, close=False)
        assert resume(ident, {"last-event-id": "1-99999"}).status == 404
        assert resume(ident, {"last-event-id": "2-1"}).status == 404
        assert resume(ident, {"x-user-id": "somebody else"}).status == 404
        assert resume("msg_" + "0" * 26).status == 404
        assert stream.read().end == "done"
        # Many readers of one stream, here and there.
        stream, ident = begin(2, max_tokens=60)
        texts = in_threads(8, lambda i: resume(ident, at=second if i % 2 else pipeline).read().text)
        assert len(set(texts)) == 1 and texts[0].startswith(stream.text), texts
    finally:
        second.kill()


def test_the_same_key_joins_through_another_chatd():
    second = Second()
    try:
        time.sleep(1.3)
        for stream in (True, False):
            key = os.urandom(8).hex()
            body = pipeline.body(STORY, stream=stream, max_tokens=100, temperature=1)
            headers = pipeline.headers({"idempotency-key": key})
            if stream:
                got = in_threads(4, lambda i: Stream(second if i % 2 else pipeline, "/v1/messages", body, headers).read().text)
            else:
                got = in_threads(4, lambda i: json.dumps(Pipeline.request(second if i % 2 else pipeline, "POST", "/v1/messages", body, headers)[2]))
            assert len(set(got)) == 1 and len(got[0]) > 20, got
    finally:
        second.kill()


def test_a_chatd_that_dies_takes_its_streams_along_and_says_so():
    second = Second()
    try:
        time.sleep(1.3)
        stream, ident = begin(3, at=second, close=False, max_tokens=1500)
        reader = resume(ident)
        assert reader.status == 200
        threading.Timer(0.3, second.kill).start()
        reader.read()
        assert reader.end == "error" and reader.error["type"] == "overloaded_error", (reader.end, reader.error)
        time.sleep(0.3)
        assert resume(ident, {"last-event-id": "1-3"}).status == 404
        stream.close()
    finally:
        second.kill()


def test_a_stage_that_dies_costs_a_pause_and_not_the_answer():
    whole = whole_text(max_tokens=200)
    for stage in ("safety-filter", "router", "infer-worker-0"):
        stream, ident = begin(4, max_tokens=200)
        old = pipeline.kill(stage)
        rest = resume(ident, {"last-event-id": stream.events[-1][0]}).read()
        together(stream, rest, whole)
        pipeline.wait_restarted(stage, old)
        pipeline.wait_ready()


def kv_used():
    """(KV blocks that are neither free nor evictable, running sequences)"""
    with urllib.request.urlopen(f"http://{pipeline.info['metrics']['infer-worker-0']}/metrics", timeout=5) as response:
        text = response.read().decode()
    def sum_of(name):
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)", text, re.M)
        assert found, text
        return sum(map(float, found))
    return sum_of("infer_worker_kv_blocks") - sum_of("infer_worker_kv_blocks_free"), sum_of("infer_worker_running")


def wait_idle(limit):
    start = time.monotonic()
    while kv_used() != (0, 0):
        assert time.monotonic() - start < limit, f"still running after {limit} s"
        time.sleep(0.01)
    return time.monotonic() - start


def test_what_nobody_takes_up_is_cancelled_after_the_grace_and_its_kv_freed():
    second = Second("--resume-grace", "1s")
    try:
        wait_idle(10)
        stream, ident = begin(3, at=second, max_tokens=1500)
        time.sleep(0.4)
        used = kv_used()
        assert used[0] > 0 and used[1] == 1, used  # within the grace it goes on
        time.sleep(0.7)
        assert wait_idle(1) < 0.5
        assert resume(ident, {"last-event-id": "1-3"}, at=second).end in ("refused", "cut", None)
        # Taken up within the grace, it is not cancelled by the first reader's.
        stream, ident = begin(3, at=second, max_tokens=400)
        time.sleep(0.5)
        rest = resume(ident, {"last-event-id": stream.events[-1][0]}, at=second)
        rest.read()
        assert rest.end == "done", (rest.end, rest.error)
    finally:
        second.kill()


def test_a_hundred_streams_cut_at_random_leave_nothing_running():
    second = Second("--resume-grace", "0s")
    try:
        wait_idle(10)
        seed = random.randrange(1 << 30)
        print("seed", seed)

        def one(i):
            draw = random.Random(seed + i)
            for _ in range(13):
                body = pipeline.body(f"{i} {draw.random()} {STORY}", stream=True, max_tokens=300)
                stream = Stream(second, "/v1/messages", body, pipeline.headers())
                try:
                    stream.read(cut_after(draw.randrange(1, 12)))
                except Cut:
                    pass
                stream.response.close()
                stream.close()
        in_threads(8, one)
        took = wait_idle(3)
        print(f"idle {took * 1000:.0f} ms after the last cut")
        assert took < 1.0, took
        metrics = Pipeline.request(second, "GET", "/readyz", None, {})
        assert metrics[0] == 200
    finally:
        second.kill()


if __name__ == "__main__":
    with Pipeline() as pipeline:
        run_tests(globals())
