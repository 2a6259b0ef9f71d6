"""What outlives a client, and what outlives chatd: turns go on, streams are taken up, the same key gives the same answer."""

import json
import socket
import threading
import time

from harness import Pipeline, Stream, check_grammar, run_tests

pipeline = Pipeline()
STORY = "Tell me a story about a fox."


def conversation():
    status, _, made = pipeline.request("POST", "/v1/conversations", {})
    assert status == 201, made
    return f"/v1/conversations/{made['id']}/messages"


def send_body(text=STORY, **members):
    return {"content": text, "max_tokens": 80, "temperature": 0, **members}


def wait_status(path, mid, wanted, limit=15):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            status, _, message = pipeline.request("GET", f"{path}/{mid}", timeout=5)
            if status == 200 and message["status"] in wanted:
                return message
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{mid} is not {wanted} within {limit} s" + pipeline.logs())


class Cut(Exception):
    pass


def cut_after(count):
    def on_event(stream, event):
        stream.deltas = getattr(stream, "deltas", 0) + (event["type"] == "content_block_delta")
        if stream.deltas >= count:
            raise Cut
    return on_event


def read_cut(path, body, count, headers=None):
    stream = Stream(pipeline, path, body, headers)
    try:
        stream.read(cut_after(count))
    except Cut:
        pass
    return stream


def test_a_client_that_leaves_a_conversation_changes_nothing():
    path = conversation()
    stream = read_cut(path, send_body(), 3)
    stream.close()
    mid = stream.events[0][1]["message"]["id"]
    message = wait_status(path, mid, {"done"})
    assert message["stop_reason"] == "max_tokens", message
    assert message["usage"]["output_tokens"] == 80, message


def test_offsets_and_ids_are_dense_and_the_ends_agree():
    path = conversation()
    stream = pipeline.stream(path, send_body())
    assert [ident for ident, e in stream.events if e["type"] != "ping"] == [f"1-{i}" for i in range(1, len(stream.types()) + 1)]
    assert stream.types()[0] == "message_accepted"
    check_grammar(stream.types()[1:])
    at = 0
    for _, event in stream.events:
        if event["type"] == "content_block_delta":
            assert event["offset"] == at, event
            at += len(event["delta"]["text"].encode())
    mid = stream.events[0][1]["message"]["id"]
    message = pipeline.request("GET", f"{path}/{mid}")[2]
    assert message["content"] == [{"type": "text", "text": stream.text}], message


def test_a_second_send_to_a_running_branch_is_409_with_the_running_id():
    path = conversation()
    stream = read_cut(path, send_body(max_tokens=400), 2)
    mid = stream.events[0][1]["message"]["id"]
    status, headers, answer = pipeline.request("POST", path, send_body("And now?"))
    assert status == 409 and mid in answer["error"]["message"], answer
    assert headers["x-should-retry"] == "false", headers
    status, _, message = pipeline.request("POST", f"{path}/{mid}/cancel")
    assert status == 200 and message["status"] == "cancelled", message
    again = pipeline.request("POST", f"{path}/{mid}/cancel")
    assert again[0] == 200 and again[2] == message, again
    rest = stream.read()
    assert rest.types()[-1] == "message_stop" and rest.stop_reason() is None
    assert message["content"][0]["text"] == rest.text
    stream.close()


def test_an_answer_whose_conversation_is_deleted_ends_and_says_so():
    path = conversation()
    stream = read_cut(path, send_body(max_tokens=400), 2)
    assert pipeline.request("DELETE", path.removesuffix("/messages"))[0] == 200
    rest = stream.read()
    assert rest.error == {"type": "not_found_error", "message": "the conversation was deleted"}, rest.error
    stream.close()


def test_an_answer_cut_by_the_death_of_chatd_goes_on_with_the_same_bits():
    whole = pipeline.stream(conversation(), send_body()).text
    path = conversation()
    headers = pipeline.headers({"idempotency-key": "turn-1"})
    stream = read_cut(path, send_body(), 12, headers)
    mid = stream.events[0][1]["message"]["id"]
    pid = pipeline.kill("chatd")
    stream.close()
    pipeline.wait_restarted("chatd", pid)
    pipeline.wait_ready()
    message = wait_status(path, mid, {"interrupted"})
    assert whole.startswith("".join(b["text"] for b in message["content"])), message
    again = pipeline.stream(path, send_body(), headers)
    assert again.end == "done", again.error
    assert again.events[0][1]["message"]["id"] == mid
    assert again.text == whole, (again.text, whole)
    assert {ident.split("-")[0] for ident, e in again.events if e["type"] != "ping"} != {"1"}
    message = pipeline.request("GET", f"{path}/{mid}")[2]
    assert message["status"] == "done" and message["content"][0]["text"] == whole, message
    assert message["usage"]["output_tokens"] == 80, message


def test_a_cut_stream_is_taken_up_where_it_was():
    body = pipeline.body(STORY, stream=True, max_tokens=120)
    whole = pipeline.stream("/v1/messages", body)
    stream = read_cut("/v1/messages", body, 10)
    mid = stream.events[0][1]["message"]["id"]
    place = stream.events[-1][0]
    stream.close()
    rest = Stream(pipeline, f"/v1/messages/{mid}/stream", None, pipeline.headers({"last-event-id": place}), method="GET").read()
    assert rest.end == "done", (rest.status, rest.error)
    assert int(rest.events[0][0].split("-")[1]) == int(place.split("-")[1]) + 1
    assert stream.text + rest.text == whole.text
    other = Stream(pipeline, f"/v1/messages/{mid}/stream", None, pipeline.headers({"x-user-id": "another"}), method="GET").read()
    assert other.status == 404, other.status


def test_a_reader_that_does_not_read_holds_up_nobody_else():
    data = json.dumps(pipeline.body(STORY, stream=True, max_tokens=1000)).encode()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect((pipeline.host, pipeline.port))
    head = "".join(f"{k}: {v}\r\n" for k, v in {**pipeline.headers(), "host": "x", "content-length": len(data)}.items())
    slow.sendall(f"POST /v1/messages HTTP/1.1\r\n{head}\r\n".encode() + data)
    for _ in range(4):
        begun = time.monotonic()
        assert pipeline.message("Say hello.", max_tokens=8)[0] == 200
        assert time.monotonic() - begun < 5
    slow.settimeout(60)
    got = b""
    while b"event: message_stop" not in got[-400:]:
        piece = slow.recv(65536)
        assert piece, got[-300:]
        got += piece
    slow.close()


def test_many_sends_at_once_to_one_conversation_run_one_and_refuse_the_rest():
    path = conversation()
    statuses = [None] * 6

    def one(i):
        statuses[i] = pipeline.request("POST", path, send_body(f"Number {i}?", stream=False, max_tokens=40))[0]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(statuses))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(200) >= 1 and set(statuses) <= {200, 409}, statuses
    data = pipeline.request("GET", path + "?order=asc")[2]["data"]
    assert len(data) == 2 * statuses.count(200), [m["status"] for m in data]
    parents = [m["parent_id"] for m in data]
    assert parents == [None] + [m["id"] for m in data[:-1]], parents


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
