"""What a user's other devices are told: nothing missed, nothing of others, over two chatd; read marks; stopping an answer made elsewhere."""

import socket
import threading
import time

from harness import Pipeline, Stream, run_tests
from second_chatd import SecondChatd

pipeline = Pipeline(CHATD_TITLES="off")  # what is counted here is the tests' own
USER = {"x-user-id": "ann"}


class Feed:
    """One device, read by a thread."""

    def __init__(self, since=None, to=None, user="ann"):
        headers = {"x-user-id": user, **({"last-event-id": str(since)} if since is not None else {})}
        self.stream = Stream(to or pipeline, "/v1/events", None, pipeline.headers(headers), method="GET")
        assert self.stream.status == 200, self.stream.error
        self.thread = threading.Thread(target=self.stream.read, daemon=True)
        self.thread.start()
        self.wait(lambda events: events)

    @property
    def events(self):
        return [event for _, event in self.stream.events if event["type"] not in ("ping", "presence")]

    @property
    def types(self):
        return [event["type"] for event in self.events]

    def wait(self, true, limit=10):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if true(self.events):
                return self.events
            time.sleep(0.01)
        raise AssertionError(f"not within {limit} s: {self.events}")

    def cut(self):
        self.stream.connection.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def place(self):
        return [int(ident) for ident, _ in self.stream.events if ident][-1]


def call(method, path, body=None, user="ann"):
    return pipeline.request(method, path, body, pipeline.headers({"x-user-id": user}))


def conversation(user="ann"):
    return call("POST", "/v1/conversations", {}, user)[2]["id"]


def send(conv, text="Say hello.", user="ann", **members):
    return call("POST", f"/v1/conversations/{conv}/messages", {"content": text, "max_tokens": 4, "stream": False, **members}, user)[2]


def test_every_device_hears_what_happens_and_no_other_user_does():
    with SecondChatd(pipeline) as second:
        feeds = [Feed(), Feed(), Feed(to=second)]
        other = Feed(user="bob")
        conv = conversation()
        said = send(conv)
        call("PATCH", f"/v1/conversations/{conv}", {"title": "a title"})
        call("DELETE", f"/v1/conversations/{conv}")
        wanted = ["hello", "conversation.created", "message.created", "message.finished", "conversation.updated", "conversation.deleted"]
        for feed in feeds:
            events = feed.wait(lambda e: len(e) >= len(wanted))
            assert feed.types == wanted, feed.types
            assert all(e["conversation_id"] == conv for e in events[1:])
            assert events[2]["message_id"] == events[3]["message_id"] == said["message"]["id"]
            assert events[2]["user_message_id"] == said["user_message"]["id"] and events[3]["status"] == "done"
            assert [e["seq"] for e in events] == sorted({e["seq"] for e in events})
            assert "a title" not in str(events)
        assert other.types == ["hello"]


def test_a_device_that_comes_back_misses_nothing():
    feed = Feed()
    conversation()
    feed.wait(lambda e: len(e) == 2)
    place = feed.place()
    feed.cut()
    made = [conversation() for _ in range(30)]
    conversation("bob")
    again = Feed(since=place)
    events = again.wait(lambda e: len(e) >= 31)
    assert [e["conversation_id"] for e in events[1:]] == made
    assert events[0]["type"] == "hello"


def test_nothing_is_missed_or_told_twice_while_devices_come_and_go_under_writes():
    stop = threading.Event()
    made = []
    begun = Feed()
    place = begun.place()

    def write():
        while not stop.is_set():
            made.append(conversation())

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    for _ in range(8):
        feed = Feed(since=place)
        time.sleep(0.15)
        feed.cut()
        events = feed.stream.events
        for ident, event in events:
            if event["type"] == "conversation.created":
                seen.append(event["conversation_id"])
                place = int(ident)
    stop.set()
    writer.join()
    rest = Feed(since=place)
    rest.wait(lambda e: len(seen) + len(e) - 1 >= len(made))
    seen += [e["conversation_id"] for e in rest.events[1:]]
    assert seen == made, (len(seen), len(made))
    assert len(made) > 8


def test_a_place_that_cannot_be_followed_from_is_told_to_read_anew():
    now = Feed().place()
    for place in (now + 1000, "nonsense", "-1", "99999999999999999999999"):
        feed = Feed(since=place)
        assert feed.types == ["resync"] and feed.events[0]["seq"] >= now, feed.events
        conv = conversation()
        feed.wait(lambda e: len(e) == 2)
        assert feed.events[1]["conversation_id"] == conv


def test_feeds_go_on_when_the_store_is_killed_and_end_with_their_session():
    feed = Feed()
    pid = pipeline.kill("convstore")
    pipeline.wait_restarted("convstore", pid)
    pipeline.wait_ready(20)
    conv = conversation()
    feed.wait(lambda e: len(e) == 2)
    assert feed.events[1]["conversation_id"] == conv
    assert pipeline.request("GET", "/v1/events", headers={})[0] == 401


def test_read_marks_feed_the_unread_count_and_never_go_back():
    conv = conversation()
    first, second = send(conv), send(conv)
    found = call("GET", f"/v1/conversations/{conv}")[2]
    assert found["unread_count"] == 1, found
    feed = Feed()
    path = f"/v1/conversations/{conv}/read"
    status, _, said = call("POST", path, {"message_id": second["message"]["id"]})
    assert status == 200 and said["unread_count"] == 0, said
    feed.wait(lambda e: len(e) == 2)
    assert feed.types[1] == "conversation.read" and feed.events[1]["message_id"] == second["message"]["id"]
    assert call("POST", path, {"message_id": first["message"]["id"]})[2]["unread_count"] == 0
    assert call("GET", f"/v1/conversations/{conv}")[2]["unread_count"] == 0
    for body, status in (({}, 400), ({"message_id": 5}, 400), ({"message_id": "x"}, 404), ({"message_id": "msg_" + "0" * 26}, 404)):
        assert call("POST", path, body)[0] == status, body
    assert call("POST", path, {"message_id": second["message"]["id"]}, "bob")[0] == 404


def test_an_answer_is_stopped_from_a_chatd_that_does_not_make_it():
    with SecondChatd(pipeline) as second:
        conv = conversation()
        path = f"/v1/conversations/{conv}/messages"
        stream = Stream(pipeline, path, {"content": "Tell me a long story.", "max_tokens": 1000, "temperature": 0}, pipeline.headers(USER))
        reader = threading.Thread(target=stream.read)
        reader.start()
        while len(stream.events) < 6:
            time.sleep(0.005)
        mid = stream.events[0][1]["message"]["id"]
        status, _, message = Pipeline.request(second, "POST", f"{path}/{mid}/cancel", headers=pipeline.headers(USER))
        assert status == 200 and message["status"] == "cancelled", message
        reader.join()
        assert stream.end == "done" and stream.text == message["content"][0]["text"]
        assert Pipeline.request(second, "POST", f"{path}/{mid}/cancel", headers=pipeline.headers(USER))[2] == message
        assert Pipeline.request(second, "POST", f"{path}/{mid}/cancel", headers=pipeline.headers({"x-user-id": "bob"}))[0] == 404


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
