#!/usr/bin/env python3
"""Limits, from outside: what is admitted, what is refused and with which words, over one chatd and over two."""
import datetime
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time

from harness import ROOT, Pipeline, Stream, in_threads, run_tests

BIN = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin")
pipeline = None


def convstore(*args, good=True):
    said = pipeline.convstore(*args, good=good)
    return json.loads(said) if said.startswith("{") else said.strip()


def new_key(limits, *more, org="pipeline"):
    return convstore("key", "create", "--org", org, "--json", "--limits", json.dumps(limits), *more)


def ask(key, max_tokens=1, text="Say yes.", port=None, stream=False, **members):
    saved = pipeline.port
    body = pipeline.body(text, max_tokens=max_tokens, stream=stream, **members)
    headers = {"x-api-key": key["key"], "anthropic-version": "2023-06-01", "content-type": "application/json"}
    if stream:
        return Stream(pipeline, "/v1/messages", body, headers)
    try:
        if port:
            class Other:
                host = pipeline.host
            Other.port = port
            return Pipeline.request(Other, "POST", "/v1/messages", body, headers)
        return pipeline.request("POST", "/v1/messages", body, headers)
    finally:
        assert saved == pipeline.port


def refused(answer, status=429, kind="rate_limit_error"):
    assert answer[0] == status, answer
    assert answer[2]["error"]["type"] == kind, answer
    if status == 429:
        assert 1 <= int(answer[1]["retry-after"]) <= 60, answer
    return answer[2]["error"]["message"]


def test_without_limits_nothing_is_said_or_refused():
    key = new_key({})
    for _ in range(5):
        status, headers, _ = ask(key)
        assert status == 200 and not [name for name in headers if "ratelimit" in name], headers


def test_requests_past_the_burst_wait_as_long_as_they_are_told():
    key = new_key({"requests": 30, "requests_burst": 3})
    for left in (2, 1, 0):
        status, headers, _ = ask(key)
        assert status == 200, status
        assert headers["anthropic-ratelimit-requests-limit"] == "30", headers
        assert int(headers["anthropic-ratelimit-requests-remaining"]) in (left, left + 1), headers
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", headers["anthropic-ratelimit-requests-reset"]), headers
        assert not [name for name in headers if "tokens" in name], headers
    answer = ask(key)
    message = refused(answer)
    assert message == "This request would exceed this API key's rate limit of 30 requests per minute. Please try again later.", message
    assert "x-should-retry" not in answer[1], answer
    assert answer[1]["anthropic-ratelimit-requests-remaining"] == "0", answer
    reset = datetime.datetime.strptime(answer[1]["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ")
    ahead = (reset - datetime.datetime.utcnow()).total_seconds()
    assert 3 < ahead < 8, ahead  # 2 s a request
    time.sleep(int(answer[1]["retry-after"]))
    assert ask(key)[0] == 200
    refused(ask(key))
    # A refused stream is an error before the first byte.
    stream = ask(key, stream=True)
    assert stream.status == 429 and stream.error["error"]["type"] == "rate_limit_error", stream.error


def test_output_is_reserved_by_max_tokens_and_given_back():
    key = new_key({"output_tokens": 60, "output_tokens_burst": 50})
    answer = ask(key, max_tokens=51)
    message = refused(answer)
    assert "60 output tokens per minute" in message and "Reduce" in message, message
    assert answer[1]["x-should-retry"] == "false" and answer[1]["retry-after"], answer
    for _ in range(4):  # 50 are reserved each time, and few are used
        status, headers, body = ask(key, max_tokens=40, stop_sequences=["e", "a", "o", "."])
        assert status == 200, (status, body)
        assert body["usage"]["output_tokens"] < 12, body
        assert headers["anthropic-ratelimit-output-tokens-limit"] == "60", headers
        assert headers["anthropic-ratelimit-tokens-limit"] == "60", headers
        time.sleep(1)
    status, headers, body = ask(key, max_tokens=30)
    used = body["usage"]["output_tokens"]
    assert status == 200 and used > 12, body
    refused(ask(key, max_tokens=50))


def test_input_counts_as_count_tokens_says():
    text = "One two three four five six seven eight nine ten."
    body = pipeline.body(text)
    del body["max_tokens"], body["temperature"]
    count = pipeline.request("POST", "/v1/messages/count_tokens", body)[2]["input_tokens"]
    key = new_key({"input_tokens": count})
    answer = ask(key, text=text)
    assert answer[0] == 200 and answer[1]["anthropic-ratelimit-input-tokens-remaining"] == "0", answer
    assert "input tokens per minute" in refused(ask(key, text=text))
    answer = ask(new_key({"input_tokens": count - 1}), text=text)
    refused(answer)
    assert answer[1]["x-should-retry"] == "false", answer


def test_end_users_are_counted_apart():
    key = new_key({"user": {"requests": 1}})
    assert ask(key, metadata={"user_id": "one"})[0] == 200
    assert "this end user's" in refused(ask(key, metadata={"user_id": "one"}))
    assert ask(key, metadata={"user_id": "two"})[0] == 200
    assert ask(key)[0] == 200
    refused(ask(key))
    # The same name in another org is another user.
    org = convstore("org", "create", "users-org", "--json", "--limits", json.dumps({"user": {"requests": 1}}))
    other = new_key({}, org=org["org"])
    assert ask(other, metadata={"user_id": "one"})[0] == 200
    refused(ask(other, metadata={"user_id": "one"}))


def test_an_org_limit_holds_over_its_keys_and_changes_within_a_second():
    org = convstore("org", "create", "small-org", "--json", "--limits", json.dumps({"requests": 60, "requests_burst": 2}))
    one, two = new_key({}, org=org["org"]), new_key({"requests": 1000}, org=org["org"])
    assert ask(one)[0] == 200 and ask(two)[0] == 200
    assert "your organization's" in refused(ask(one))
    convstore("org", "update", org["org"], "--limits", "{}")
    time.sleep(1.2)
    assert ask(one)[0] == 200 and ask(one)[0] == 200
    convstore("org", "update", "small-org", "--limits", '{"requests":0}', good=False)
    convstore("org", "update", "small-org", "--limits", '{"rpm":5}', good=False)
    convstore("org", "update", "small-org", "--disabled", "yes")
    time.sleep(1.2)
    assert ask(one)[0] == 401


def test_concurrent_requests_are_bounded_and_a_reader_who_left_makes_room():
    key = new_key({"concurrent": 1})
    running = ask(key, max_tokens=1500, stream=True, text="Tell me a long story about a fox and a river.")
    line = running.response.readline()
    assert line.startswith(b"id:") or line.startswith(b"event:"), line
    assert "1 concurrent requests" in refused(ask(key))
    running.connection.sock.close()  # past its cap the grace is cut short
    running.response.close()
    start = time.monotonic()
    while ask(key)[0] != 200:
        assert time.monotonic() - start < 3, "the place was not free within 3 s"
        time.sleep(0.05)


def test_spend_ends_at_its_limit_and_that_is_no_429():
    key = new_key({"spend": 0.0002, "spend_period": "day"})  # 200 millionths: 1 a prompt token, 5 an answer token
    status, headers, body = ask(key, max_tokens=8)
    assert status == 200, body
    answer = ask(key, max_tokens=40)
    assert "spend limit of 0.0002 per day" in refused(answer, 402, "billing_error"), answer
    spent = 0
    for _ in range(20):
        status, _, body = ask(key, max_tokens=8)
        if status != 200:
            break
        spent += body["usage"]["input_tokens"] + 5 * body["usage"]["output_tokens"]
    assert status == 402 and spent <= 200, (status, spent)


def test_scopes_models_expiry_and_rotation():
    assert ask(new_key({}, "--scope", "conversations"))[0] == 403
    answer = ask(new_key({}, "--model", "some-other-model"))
    assert answer[0] == 403 and answer[2]["error"]["type"] == "permission_error", answer
    assert ask(new_key({}, "--model", pipeline.model))[0] == 200
    short = new_key({}, "--expires-in", "1500ms")
    assert ask(short)[0] == 200
    old = new_key({"requests": 60, "requests_burst": 2})
    fresh = convstore("key", "rotate", old["key_id"], "--grace", "2s", "--json")
    rotated = time.monotonic()
    assert fresh["key"] != old["key"] and fresh["old_key_id"] == old["key_id"], fresh
    assert ask(old)[0] == 200 and ask(fresh)[0] == 200
    refused(ask(fresh))  # one bucket for both
    time.sleep(max(0, 3.3 - (time.monotonic() - rotated)))
    answer = ask(old)
    assert answer[0] == 401 and answer[2]["error"]["message"] == "invalid x-api-key", answer
    assert ask(fresh)[0] == 200
    assert ask(short)[0] == 401
    convstore("key", "rotate", old["key_id"], good=False)  # no longer works: cannot be the root of another
    convstore("key", "update", fresh["key_id"], "--scope", "conversations")
    time.sleep(1.2)
    assert ask(fresh)[0] == 403


class Second:
    """Another chatd over the same store."""

    def __init__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([os.path.join(BIN, "chatd"), "serve", "--bind", "127.0.0.1:0", "--state", pipeline.state],
                                        stderr=self.log)
        self.port = None
        until = time.monotonic() + 10
        while self.port is None and time.monotonic() < until:
            self.log.seek(0)
            found = re.search(r"event=chatd.ready url=http://[^:]+:(\d+)", self.log.read())
            self.port = int(found.group(1)) if found else None
            time.sleep(0.02)
        assert self.port
        headers = {"x-api-key": pipeline.key, "anthropic-version": "2023-06-01"}
        while True:
            class Other:
                host, port = pipeline.host, self.port
            if Pipeline.request(Other, "GET", "/readyz", None, headers)[0] == 200:
                break
            assert time.monotonic() < until
            time.sleep(0.02)

    def stop(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        self.process.wait(20)


def test_two_chatd_admit_no_more_than_burst_and_rate_in_any_window():
    seed = random.randrange(1 << 30)
    print("seed", seed)
    burst, rate = 4, 300 / 60
    out_burst, out_rate = 60, 1200 / 60
    key = new_key({"requests": 300, "requests_burst": burst, "output_tokens": 1200, "output_tokens_burst": out_burst, "concurrent": 3})
    second = Second()
    try:
        got, lock, end = [], threading.Lock(), time.monotonic() + 12
        others = []

        def client(i):
            draw = random.Random(seed + i)
            while time.monotonic() < end:
                max_tokens = draw.choice([1, 2, 4, 8, 20])
                start = time.monotonic()
                status, _, body = ask(key, max_tokens=max_tokens, port=draw.choice([pipeline.port, second.port]), text="Count.")
                if status == 200:
                    with lock:
                        got.append((start, time.monotonic(), body["usage"]["output_tokens"]))
                elif status != 429:
                    others.append((status, body))
                time.sleep(draw.random() * 0.05)

        in_threads(6, client)
        assert not others, others
        assert len(got) > 30, len(got)
        # What was surely admitted within a window: sent after its begin, answered before its end.
        for begin, _, _ in got:
            inside = sorted((done, tokens) for start, done, tokens in got if start >= begin)
            count = tokens = 0
            for done, used in inside:
                count += 1
                tokens += used
                window = done - begin
                assert count <= burst + rate * window + 1e-6, (count, window)
                assert tokens <= out_burst + out_rate * window + 1e-6, (tokens, window)
        print(len(got), "answers,", sum(tokens for _, _, tokens in got), "tokens")
    finally:
        second.stop()


def test_a_killed_chatd_gives_its_places_back():
    key = new_key({"concurrent": 2})
    second = Second()

    class Other:
        host, port, headers = pipeline.host, second.port, pipeline.headers
    streams = [Stream(Other, "/v1/messages", pipeline.body("Tell me a long story about a fox and a river.", max_tokens=1500, stream=True),
                      {"x-api-key": key["key"], "anthropic-version": "2023-06-01"}) for _ in range(2)]
    for stream in streams:
        stream.response.readline()
    refused(ask(key))
    second.stop(signal.SIGKILL)
    start = time.monotonic()
    while ask(key)[0] != 200:
        assert time.monotonic() - start < 3, "the places were not given back within 3 s"
        time.sleep(0.05)


def test_a_cold_start_remembers_the_usage_of_the_last_minutes():
    key = new_key({"output_tokens": 40, "requests": 3})
    status, _, body = ask(key, max_tokens=30, text="Tell a long story about a river.")
    assert status == 200 and body["usage"]["output_tokens"] > 25, body
    time.sleep(0.5)  # the charge is grouped
    table = os.path.join(pipeline.state, "run", "limits")
    os.unlink(table)  # as after a reboot, when it is of another boot
    old = pipeline.kill("chatd")
    pipeline.wait_restarted("chatd", old)
    pipeline.wait_ready()
    answer = ask(key, max_tokens=38)
    message = refused(answer)
    assert "output tokens" in message, message
    assert int(answer[1]["anthropic-ratelimit-requests-remaining"]) <= 2, answer
    assert ask(key, max_tokens=1)[0] == 200


def test_conversations_are_limited_too():
    key = new_key({"requests": 60, "requests_burst": 1})
    headers = {"x-api-key": key["key"]}
    conversation = pipeline.request("POST", "/v1/conversations", {}, headers)[2]["id"]
    path = f"/v1/conversations/{conversation}/messages"
    body = {"content": "Say yes.", "stream": False, "max_tokens": 2}
    again = {**headers, "idempotency-key": "k1"}
    status, said, first = pipeline.request("POST", path, body, again)
    assert status == 200 and said["anthropic-ratelimit-requests-limit"] == "60", (status, said, first)
    # A repeat is no new request.
    status, _, second = pipeline.request("POST", path, body, again)
    assert status == 200 and second["message"]["id"] == first["message"]["id"], second
    refused(pipeline.request("POST", path, body, headers))


if __name__ == "__main__":
    with Pipeline() as pipeline:
        run_tests(globals())
