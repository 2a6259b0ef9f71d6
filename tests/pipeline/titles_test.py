"""A conversation without a title gets one from its model after the first answer; one that somebody gave stays."""

import time

from harness import Pipeline, need_model, run_tests

need_model()
pipeline = Pipeline()


def call(method, path, body=None, p=None):
    status, _, got = (p or pipeline).request(method, path, body)
    assert status in (200, 201), (method, path, status, got)
    return got


def conversation(text, p=None, **members):
    made = call("POST", "/v1/conversations", members, p)
    path = "/v1/conversations/" + made["id"]
    call("POST", path + "/messages", {"content": text, "max_tokens": 24, "temperature": 0, "stream": False}, p)
    return path


def titled(path, limit=60, p=None):
    until = time.monotonic() + limit
    while not (title := call("GET", path, p=p)["title"]) and time.monotonic() < until:
        time.sleep(0.05)
    return title


def test_the_model_names_it_and_the_cost_is_charged():
    before = call("GET", "/v1/usage")["total"]["requests"]
    path = conversation("What is the capital of France?")
    title = titled(path)
    assert title != "What is the capital of France?", "the question instead of the model's title"
    assert title and len(title.encode()) <= 60 and "\n" not in title and title == title.strip(), title
    until = time.monotonic() + 10
    while call("GET", "/v1/usage")["total"]["requests"] < before + 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert call("GET", "/v1/usage")["total"]["requests"] == before + 2, "the answer and its title"
    # It is no message, and the next answer makes no other.
    assert call("GET", path)["message_count"] == 2
    call("POST", path + "/messages", {"content": "And of Spain?", "max_tokens": 8, "stream": False})
    time.sleep(1)
    assert call("GET", path)["title"] == title


def test_a_title_that_was_given_stays():
    path = conversation("Name a color.", title="Mine")
    time.sleep(1)
    assert call("GET", path)["title"] == "Mine"
    made = call("POST", "/v1/conversations", {})
    path = "/v1/conversations/" + made["id"]
    stream = pipeline.stream(path + "/messages", {"content": "Name a river.", "max_tokens": 64, "stream": True},
                             on_event=lambda s, _: len(s.events) == 3 and call("PATCH", path, {"title": "Meanwhile"}))
    assert stream.end == "done", stream.error
    time.sleep(1)
    assert call("GET", path)["title"] == "Meanwhile"


def test_a_device_learns_of_it():
    made = call("POST", "/v1/conversations", {})
    path = "/v1/conversations/" + made["id"]
    rev = call("GET", path)["rev"]
    call("POST", path + "/messages", {"content": "Name a tree.", "max_tokens": 8, "stream": False})
    assert titled(path)
    assert call("GET", path)["rev"] == rev + 1


def test_the_question_or_nothing_where_that_is_wanted():
    long = "Tell me, in not too many words, why it is that the sky of an evening is red and not green"
    with Pipeline(CHATD_TITLES="question") as p:
        title = titled(conversation("\n  \"Why is the sky blue?\"\nSay it briefly.", p), p=p)
        assert title == "Why is the sky blue?", title
        title = titled(conversation(long, p), p=p)
        assert title.endswith("\u2026") and len(title.encode()) <= 60 and long.startswith(title[:-1]), title
    with Pipeline(CHATD_TITLES="off") as p:
        path = conversation("Why is the sky blue?", p)
        time.sleep(1)
        assert not call("GET", path, p=p)["title"]


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
