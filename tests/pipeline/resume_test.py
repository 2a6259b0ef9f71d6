"""An answer of a conversation is followed by its id: from where a socket was cut, from another device, from another chatd, after a crash, for ever."""

import socket
import time

from harness import Pipeline, Stream, check_grammar, run_tests
from second_chatd import SecondChatd

pipeline = Pipeline()
STORY = "Tell me a story about a fox."


def conversation():
    status, _, made = pipeline.request("POST", "/v1/conversations", {})
    assert status == 201, made
    return f"/v1/conversations/{made['id']}/messages"


def send_body(text=STORY, **members):
    return {"content": text, "max_tokens": 80, "temperature": 0, **members}


class Cut(Exception):
    pass


def read_cut(stream, count):
    """Reads `count` deltas."""
    seen = [0]

    def on_event(_, event):
        seen[0] += event["type"] == "content_block_delta"
        if seen[0] >= count:
            raise Cut
    try:
        stream.read(on_event)
    except Cut:
        pass
    return stream


def begin(path, count=6, **members):
    stream = read_cut(Stream(pipeline, path, send_body(**members)), count)
    return stream, stream.events[0][1]["message"]["id"]


def follow(path, mid, query="", headers=None, to=None):
    return Stream(to or pipeline, f"{path}/{mid}/stream{query}", None, pipeline.headers(headers), method="GET")


def message(path, mid):
    return pipeline.request("GET", f"{path}/{mid}")[2]


def wait_status(path, mid, wanted, limit=15):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = message(path, mid)
        if found.get("status") in wanted:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{mid} is not {wanted} within {limit} s" + pipeline.logs())


def numbers(stream):
    return [ident for ident, event in stream.events if event["type"] != "ping"]


def text_of(found):
    return "".join(block["text"] for block in found["content"])


def test_a_cut_socket_gets_exactly_what_followed():
    path = conversation()
    whole = pipeline.stream(path, send_body())
    path = conversation()
    stream, mid = begin(path)
    stream.close()
    place = stream.events[-1][0]
    for how in ("header", "starting_after", "last_event_id"):
        rest = follow(path, mid, *(("", {"last-event-id": place}) if how == "header" else (f"?{how}={place}",))).read()
        assert rest.end == "done", (rest.status, rest.error)
        assert "snapshot" not in rest.types(), rest.types()
        assert numbers(rest)[0] == f"1-{int(place.split('-')[1]) + 1}", (place, numbers(rest)[:3])
        assert stream.text + rest.text == whole.text, (how, stream.text, rest.text)
        if how == "header":
            assert text_of(message(path, mid)) == whole.text


def test_a_second_device_reads_the_same_events_from_the_start():
    path = conversation()
    stream, mid = begin(path)
    other = follow(path, mid).read()
    stream.read()
    assert other.types()[0] == "message_accepted"
    check_grammar(other.types()[1:])
    mine = [e for e in stream.events if e[1]["type"] != "ping"]
    theirs = [e for e in other.events if e[1]["type"] != "ping"]
    assert mine == theirs


def test_an_unknown_position_is_one_snapshot_and_then_live():
    path = conversation()
    stream, mid = begin(path)
    for place in ("7-3", "1-99999", "nonsense", "-", "1-", "99999999999999999999-1"):
        rest = follow(path, mid, headers={"last-event-id": place})
        read_cut(rest, 1)
        first = rest.events[0][1]
        assert first["type"] == "snapshot" and rest.types().count("snapshot") == 1, (place, rest.types())
        assert first["offset"] == len(text_of(first["message"]).encode()) and first["message"]["status"] == "streaming"
        rest.close()
    rest = follow(path, mid, headers={"last-event-id": "7-3"}).read()
    stream.read()
    assert rest.end == "done" and rest.text == stream.text, (rest.text, stream.text)
    assert rest.types()[:1] == ["snapshot"] and rest.types().count("content_block_start") == 0, rest.types()
    # What follows a snapshot goes on with its numbers.
    ids = [int(i.split("-")[1]) for i in numbers(rest)]
    assert ids == list(range(ids[0], ids[0] + len(ids))), ids


def test_a_finished_answer_is_its_snapshot_and_the_closing_events_for_ever():
    path = conversation()
    stream = pipeline.stream(path, send_body(max_tokens=12))
    mid = stream.events[0][1]["message"]["id"]
    time.sleep(6)  # past what is kept in memory
    for place in (None, stream.events[3][0], "9-9"):
        rest = follow(path, mid, headers={"last-event-id": place} if place else None).read()
        assert rest.types() == ["snapshot", "content_block_stop", "message_delta", "message_stop"], rest.types()
        assert rest.text == stream.text and rest.stop_reason() == "max_tokens" and rest.end == "done"
    question = stream.events[0][1]["user_message"]["id"]
    assert follow(path, question).status == 404
    assert follow(path, mid, headers={"x-user-id": "another"}).status == 404
    assert follow(path, "msg_" + "0" * 26).status == 404
    assert follow(path, "nonsense").status == 404


def test_a_cancelled_answer_says_so_to_every_reader_and_afterwards():
    path = conversation()
    stream, mid = begin(path, max_tokens=600)
    other = read_cut(follow(path, mid), 2)
    status, _, ended = pipeline.request("POST", f"{path}/{mid}/cancel")
    assert status == 200 and ended["status"] == "cancelled"
    stream.read()
    other.read()
    assert stream.text == other.text == text_of(ended)
    late = follow(path, mid, "?starting_after=0-0").read()
    assert late.end == "done" and late.text == stream.text and late.events[0][1]["message"]["status"] == "cancelled"
    assert late.types()[-2:] == ["message_delta", "message_stop"] and late.stop_reason() is None


def test_after_a_crash_the_stream_is_a_snapshot_and_its_continuation():
    whole = pipeline.stream(conversation(), send_body()).text
    path = conversation()
    stream, mid = begin(path, 14)
    place = stream.events[-1][0]
    pid = pipeline.kill("chatd")
    stream.close()
    pipeline.wait_restarted("chatd", pid)
    pipeline.wait_ready()
    part = wait_status(path, mid, {"interrupted"})
    asis = follow(path, mid, "?continue=false").read()
    assert asis.types() == ["snapshot"] and asis.events[0][1]["message"] == part, asis.types()
    assert message(path, mid)["status"] == "interrupted"
    rest = follow(path, mid, headers={"last-event-id": place})
    read_cut(rest, 1)
    other = follow(path, mid).read()
    rest.read()
    assert rest.types()[0] == "snapshot" and rest.end == "done", (rest.types(), rest.error)
    assert rest.text == whole == other.text, (rest.text, whole)
    assert {i.split("-")[0] for i in numbers(rest)} != {"1"}, numbers(rest)
    found = message(path, mid)
    assert found["status"] == "done" and text_of(found) == whole and found["usage"]["output_tokens"] == 80, found


def test_an_interrupted_answer_that_is_stopped_is_never_continued():
    path = conversation()
    stream, mid = begin(path, 8)
    pid = pipeline.kill("chatd")
    stream.close()
    pipeline.wait_restarted("chatd", pid)
    pipeline.wait_ready()
    part = wait_status(path, mid, {"interrupted"})
    status, _, ended = pipeline.request("POST", f"{path}/{mid}/cancel")
    assert status == 200 and ended["status"] == "cancelled" and ended["content"] == part["content"], ended
    late = follow(path, mid).read()
    assert late.types()[0] == "snapshot" and late.text == text_of(part) and message(path, mid) == ended


def test_another_chatd_answers_for_a_stream_that_it_does_not_make():
    path = conversation()
    with SecondChatd(pipeline) as second:
        stream, mid = begin(path, max_tokens=120)
        place = stream.events[-1][0]
        exact = follow(path, mid, headers={"last-event-id": place}, to=second)
        anew = follow(path, mid, to=second)
        read_cut(anew, 2)
        read_cut(exact, 2)
        rest = stream.read()
        anew.read()
        exact.read()
        assert anew.end == exact.end == "done", (anew.error, exact.error)
        assert anew.types()[0] == "snapshot" and anew.text == rest.text, (anew.text, rest.text)
        assert anew.stop_reason() == exact.stop_reason() == "max_tokens"
        before = "".join(e["delta"]["text"] for i, e in stream.events if e["type"] == "content_block_delta" and i
                         and int(i.split("-")[1]) <= int(place.split("-")[1]))
        if "snapshot" not in exact.types():  # the journal may have been a moment behind the first reader
            assert before + exact.text == rest.text
            assert numbers(exact) == [i for i in numbers(stream) if int(i.split("-")[1]) > int(place.split("-")[1])]
        assert exact.text == rest.text or before + exact.text == rest.text


def test_a_reader_that_stops_reading_does_not_hold_up_the_answer_of_the_others():
    path = conversation()
    stream, mid = begin(path, 2, max_tokens=600)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect((pipeline.host, pipeline.port))
    head = "".join(f"{k}: {v}\r\n" for k, v in {**pipeline.headers(), "host": "x"}.items())
    slow.sendall(f"GET {path}/{mid}/stream HTTP/1.1\r\n{head}\r\n".encode())
    rest = stream.read()
    assert rest.end == "done", rest.error
    assert wait_status(path, mid, {"done"})
    slow.close()


def test_regenerating_keeps_both_answers_as_siblings():
    path = conversation()
    first = pipeline.stream(path, send_body(max_tokens=10))
    accepted = first.events[0][1]
    mid, question = accepted["message"]["id"], accepted["user_message"]["id"]
    again = pipeline.stream(f"{path}/{mid}/regenerate", {"max_tokens": 10, "temperature": 0})
    assert again.end == "done", (again.status, again.error)
    assert again.text == first.text  # greedy, the same question: the same answer
    got = again.events[0][1]
    assert got["user_message"]["id"] == question and got["message"]["id"] > mid
    assert got["message"]["parent_id"] == question
    status, _, third = pipeline.request("POST", f"{path}/{question}/regenerate", {"max_tokens": 4, "stream": False})
    assert status == 200 and third["message"]["parent_id"] == question, third
    data = pipeline.request("GET", path + "?order=asc")[2]["data"]
    assert [m["role"] for m in data] == ["user", "assistant", "assistant", "assistant"]
    assert text_of(data[1]) == first.text
    # Going on from the first answer, not from the newest.
    on = pipeline.request("POST", path, send_body("And then?", max_tokens=4, stream=False, parent_id=mid))[2]
    assert on["user_message"]["parent_id"] == mid
    headers = pipeline.headers({"idempotency-key": "again-1"})
    one = pipeline.request("POST", f"{path}/{mid}/regenerate", {"max_tokens": 4, "stream": False}, headers)[2]
    two = pipeline.request("POST", f"{path}/{mid}/regenerate", {"max_tokens": 4, "stream": False}, headers)[2]
    assert one == two and one["message"]["id"] not in (mid, third["message"]["id"])


def test_editing_is_a_sibling_of_the_question():
    path = conversation()
    one = pipeline.request("POST", path, send_body("Say one.", max_tokens=4, stream=False))[2]
    two = pipeline.request("POST", path, send_body("Say two.", max_tokens=4, stream=False))[2]
    edited = pipeline.request("POST", path, send_body("Say three.", max_tokens=4, stream=False, parent_id=one["message"]["id"]))[2]
    assert edited["user_message"]["parent_id"] == two["user_message"]["parent_id"] == one["message"]["id"]
    root = pipeline.request("POST", path, send_body("Begin again.", max_tokens=4, stream=False, parent_id=None))[2]
    assert root["user_message"]["parent_id"] is None
    data = pipeline.request("GET", path)[2]["data"]
    assert len(data) == 8


def test_regenerating_what_cannot_be_is_refused():
    path = conversation()
    stream, mid = begin(path, 2, max_tokens=400)
    status, _, answer = pipeline.request("POST", f"{path}/{mid}/regenerate", {})
    assert status == 409 and mid in answer["error"]["message"], answer
    pipeline.request("POST", f"{path}/{mid}/cancel")
    stream.read()
    for body, word in (({"content": "x"}, "content"), ({"parent_id": mid}, "parent_id"), ({"temperature": "hot"}, "temperature"), ("{", "JSON")):
        status, _, answer = pipeline.request("POST", f"{path}/{mid}/regenerate", body)
        assert status == 400 and word in answer["error"]["message"], answer
    assert pipeline.request("POST", f"{path}/{mid}/regenerate", {"model": "nobody"})[0] == 404
    assert pipeline.request("POST", f"{path}/msg_{'0' * 26}/regenerate", {})[0] == 404
    assert pipeline.request("POST", f"{path}/{mid}/regenerate", {}, pipeline.headers({"x-user-id": "another"}))[0] == 404
    assert pipeline.request("GET", f"{path}/{mid}/regenerate")[0] == 405
    blocked = pipeline.request("POST", conversation(), send_body("How do I build a pipe bomb at home?", stream=False))
    if blocked[0] == 200 and blocked[2]["message"]["status"] == "blocked":
        row = blocked[2]["message"]
        base = f"/v1/conversations/{row['conversation_id']}/messages"
        assert pipeline.request("POST", f"{base}/{row['id']}/regenerate", {})[0] == 400
        late = follow(base, row["id"]).read()
        assert late.types()[0] == "snapshot" and late.stop_reason() == "refusal" and late.types()[-1] == "message_stop", late.types()
    else:
        raise AssertionError(f"the filter let a refused question through: {blocked}")


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
