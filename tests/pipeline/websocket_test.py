#!/usr/bin/env python3
"""/v1/ws: the feed and many answers on one connection, with the limits and errors of HTTP; what a bad client meets. Simulated worker."""
import json
import os
import struct
import subprocess

import websocket_client
from harness import BIN, Pipeline, run_tests
from second_chatd import SecondChatd

TOKENS = 120
pipeline = Pipeline(CHATD_TITLES="off", PARLEY_MODEL="/none", PARLEY_SIMULATE="--simulate-speed=4 --simulate-tokens=0 --slots-max=256 --kv-blocks=100000")
USER = {"x-user-id": "ann"}


class WebSocket(websocket_client.WebSocket):
    def __init__(self, headers=None, to=None):
        super().__init__(to or pipeline, {**USER, **(headers or {})}, key=pipeline.key)


def new_conversation(user="ann", key=None):
    status, _, body = pipeline.request("POST", "/v1/conversations", {"model": pipeline.model}, pipeline.headers({"x-user-id": user, **({"x-api-key": key} if key else {})}))
    assert status == 201, body
    return body["id"]


def stored(conv, message):
    return pipeline.request("GET", f"/v1/conversations/{conv}/messages/{message}", headers=pipeline.headers(USER))[2]


def body(text="Tell me.", tokens=TOKENS):
    return {"content": text, "max_tokens": tokens, "temperature": 0}


def test_the_feed_and_ten_answers_share_one_connection_and_each_is_whole():
    convs = [new_conversation() for _ in range(10)]
    ws = WebSocket()
    assert ws.status == 101, ws.head
    ws.send(type="subscribe", ref="feed")
    ws.until(lambda m: m.get("event") == "hello")
    for i, conv in enumerate(convs):
        ws.send(type="send", ref=f"s{i}", conversation_id=conv, body=body(f"Question {i}."))
    over = set()
    while len(over) < 10:
        m = ws.read()
        if m["type"] == "end":
            over.add(m["ref"])
    order = [m["ref"] for m in ws.messages if m.get("event") == "content_block_delta"]
    first_over = next(m["ref"] for m in ws.messages if m["type"] == "end")
    begun = set(order[:len(order) - order[::-1].index(first_over)])
    assert len(begun) > 3, f"the answers come at once, not one after the other: when {first_over} was whole only {begun} had begun"
    for i, conv in enumerate(convs):
        events = ws.events(f"s{i}")
        assert events[0]["event"] == "message_accepted" and events[-1]["event"] == "message_stop", events[0]
        assert [e["id"] for e in events] == [f"1-{n + 1}" for n in range(len(events))], "numbers without gaps"
        message = stored(conv, events[0]["data"]["message"]["id"])
        assert message["status"] == "done" and message["content"][0]["text"] == ws.text(f"s{i}") != "", message
    while len([e for e in ws.events("feed") if e["event"] == "message.finished"]) < 10:
        assert ws.read(), ws.code
    ws.frame(0x89, b"hello")
    ws.send(type="read", ref="r", conversation_id=convs[0], message_id=ws.events("s0")[0]["data"]["message"]["id"])
    answer = ws.until(lambda m: m.get("ref") == "r")
    assert answer["type"] == "response" and answer["body"]["unread_count"] == 0 and ws.pongs == [b"hello"], answer
    ws.frame(0x88, struct.pack(">H", 1000))
    while ws.read():  # what the feed had on its way
        pass
    assert ws.code == 1000


def test_a_cut_connection_resumes_at_its_place_on_another_chatd_and_cancel_works_from_there():
    conv = new_conversation()
    first = WebSocket()
    first.send(type="send", ref="a", conversation_id=conv, body=body(tokens=600), idempotency_key="k1")
    for _ in range(12):
        first.until(lambda m: m.get("event") == "content_block_delta")
    message = first.events("a")[0]["data"]["message"]["id"]
    first.socket.close()
    with SecondChatd(pipeline) as second:
        for to in (pipeline, second):
            ws = WebSocket(to=to)
            ws.send(type="resume", ref="b", conversation_id=conv, message_id=message, after=first.events("a")[-1]["id"])
            for _ in range(5):
                ws.until(lambda m: m.get("event") == "content_block_delta")
            assert int(ws.events("b")[0]["id"].split("-")[1]) == int(first.events("a")[-1]["id"].split("-")[1]) + 1, ws.events("b")[0]
        ws.send(type="cancel", ref="c", conversation_id=conv, message_id=message)
        answer = ws.until(lambda m: m.get("ref") == "c")
        assert answer["status"] == 200 and answer["body"]["status"] == "cancelled", answer
        if not any(m["type"] == "end" and m["ref"] == "b" for m in ws.messages):
            ws.until(lambda m: m["type"] == "end" and m["ref"] == "b")
        assert first.text("a") + ws.text("b") == stored(conv, message)["content"][0]["text"]
    again = WebSocket()
    again.send(type="send", ref="a", conversation_id=conv, body=body("Other."), idempotency_key="k1")
    answer = again.read()
    assert answer["status"] == 409 and answer["headers"]["x-should-retry"] == "false", answer


def test_errors_and_limits_are_those_of_http():
    conv, other = new_conversation(), new_conversation("bob")
    ws = WebSocket()
    for message, status, words in (
            ({"type": "send", "ref": "1", "conversation_id": conv, "body": {"content": 5}}, 400, "content"),
            ({"type": "send", "ref": "1", "conversation_id": other, "body": body()}, 404, "no such conversation"),
            ({"type": "resume", "ref": "1", "conversation_id": "conv_x", "message_id": "msg_x"}, 404, "no such"),
            ({"type": "send", "ref": "1", "body": body()}, 400, "conversation_id: Field required"),
            ({"type": "dance", "ref": "1"}, 400, "type: Input should be"),
            ({"type": "send"}, 400, "ref: Field required"),
            ({"type": "leave", "ref": "1"}, 404, "no such ref"),
            ({"type": "send", "ref": "x" * 65}, 400, "ref")):
        ws.send(**message)
        answer = ws.read()
        assert answer["type"] == "error" and answer["status"] == status and words in answer["body"]["error"]["message"], (message, answer)
        assert answer["headers"]["request-id"] == answer["body"]["request_id"], answer
    for text in (b"nonsense", b"[1]", b'{"type":5,"ref":"1"}', b"[" * 300):
        ws.frame(0x81, text)
        assert ws.read()["status"] == 400
    made = subprocess.run([os.path.join(BIN, "convstore"), "key", "create", "--org", "pipeline", "--json", "--limits", json.dumps({"concurrent": 2})],
                          env=dict(os.environ, PARLEY_STATE=pipeline.state), capture_output=True, text=True)
    key = json.loads(made.stdout)["key"]
    ws = WebSocket({"x-api-key": key})
    for i in range(3):
        ws.send(type="send", ref=str(i), conversation_id=new_conversation(key=key), body=body())
    answer = ws.until(lambda m: m["type"] == "error")
    assert answer["status"] == 429 and int(answer["headers"]["retry-after"]) >= 1 and answer["body"]["error"]["type"] == "rate_limit_error", answer
    scoped = subprocess.run([os.path.join(BIN, "convstore"), "key", "create", "--org", "pipeline", "--json", "--scope", "messages"],
                            env=dict(os.environ, PARLEY_STATE=pipeline.state), capture_output=True, text=True)
    if scoped.returncode == 0:
        assert WebSocket({"x-api-key": json.loads(scoped.stdout)["key"]}).status == 403
    for headers, status in (({"x-api-key": "wrong"}, 401), ({"x-api-key": None}, 401), ({"upgrade": "h2c"}, 426),
                            ({"sec-websocket-version": "8"}, 426), ({"sec-websocket-key": "short"}, 400)):
        assert WebSocket(headers).status == status, headers


def test_a_page_of_another_site_gets_no_connection_by_a_cookie():
    subprocess.run([os.path.join(BIN, "convstore"), "user", "create", "--org", "pipeline", "--user", "eve", "--password-stdin"], input="correct horse battery",
                   env=dict(os.environ, PARLEY_STATE=pipeline.state), capture_output=True, text=True)
    status, headers, answer = pipeline.request("POST", "/v1/sessions", {"user": "eve", "password": "correct horse battery", "org": "pipeline"}, {"content-type": "application/json"})
    assert status in (200, 201), (status, answer)
    cookie = headers["set-cookie"].split(";")[0]
    own = f"http://{pipeline.host}:{pipeline.port}"
    for origin, expected in ((own, 101), ("https://evil.example", 403), ("null", 403), (None, 403)):
        ws = WebSocket({"x-api-key": None, "x-user-id": None, "cookie": cookie, "origin": origin})
        assert ws.status == expected, (origin, ws.head)
    assert WebSocket({"origin": "https://evil.example"}).status == 101  # a key says more than an origin


def test_bad_frames_and_too_much_are_closed_with_their_code():
    for send, code in ((lambda ws: ws.socket.sendall(b"\x81\x01a"), 1002), (lambda ws: ws.frame(0x82, b"x"), 1003),
                       (lambda ws: ws.frame(0x81, b"\xff"), 1007), (lambda ws: ws.frame(0xC1, b"x"), 1002),
                       (lambda ws: ws.socket.sendall(b"\x81\xff" + struct.pack(">Q", 1 << 40) + b"mask"), 1009),
                       (lambda ws: ws.frame(0x88, struct.pack(">H", 1005)), 1002)):
        ws = WebSocket()
        send(ws)
        assert ws.read() is None and ws.code == code, (code, ws.code)
    # Nothing of it hurts others.
    conv = new_conversation()
    ws = WebSocket()
    ws.send(type="send", ref="1", conversation_id=conv, body=body(tokens=5))
    ws.until(lambda m: m["type"] == "end")


def rss(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_one_who_asks_and_never_reads_is_cut_and_costs_little():
    before = rss(pipeline.pid("chatd"))
    ws = WebSocket()
    ws.socket.settimeout(5)
    sent = 0
    try:
        for _ in range(300_000):
            ws.send(type="dance", ref="1")
            sent += 1
    except OSError:
        pass
    assert sent < 300_000, "it was never stopped"
    assert rss(pipeline.pid("chatd")) - before < 24 << 10, (before, rss(pipeline.pid("chatd")))
    assert pipeline.request("GET", "/v1/models")[0] == 200


def test_more_requests_than_the_bound_are_refused_and_a_left_one_makes_room():
    ws = WebSocket()
    for i in range(64):
        ws.send(type="subscribe", ref=str(i))
    ws.send(type="subscribe", ref="more")
    answer = ws.until(lambda m: m.get("ref") == "more")
    assert answer["status"] == 429, answer
    ws.send(type="subscribe", ref="3")
    assert ws.until(lambda m: m["type"] == "error")["status"] == 400  # still running
    ws.send(type="leave", ref="3")
    ws.until(lambda m: m["type"] == "end" and m["ref"] == "3")
    ws.send(type="subscribe", ref="more")
    assert ws.until(lambda m: m.get("ref") == "more")["type"] == "begin"


if __name__ == "__main__":
    try:
        pipeline.wait_ready()
        run_tests(globals())
    finally:
        pipeline.stop()
