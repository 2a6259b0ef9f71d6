"""Users send, and read live on several devices, while any tool is killed at any moment: what was acknowledged is stored, once and in
order, and every reader ends with the stored bytes. A simulated worker; PARLEY_KILLS, PARLEY_USERS and PARLEY_SEED set the size."""

import http.client
import json
import os
import random
import threading
import time
import uuid

from harness import Pipeline, run_tests

KILLS = int(os.environ.get("PARLEY_KILLS", "10"))  # tests/long.sh kills: 300
USERS = int(os.environ.get("PARLEY_USERS", "5"))
SEED = int(os.environ.get("PARLEY_SEED") or random.randrange(1 << 32))
READERS = 2  # devices beside the one that sends
TOOLS = ["chatd", "safety-filter", "router", "infer-worker-0", "infer-worker-1", "convstore"]
PATIENCE = 60  # seconds in which whoever was cut off gets through again

pipeline = Pipeline(PARLEY_WORKERS=2, PARLEY_MODEL="/no/such/model.gguf", PARLEY_NOTIFY="no",
                    PARLEY_SIMULATE="--simulate-step-us=8000 --simulate-tokens=90")
stopping = threading.Event()
wrong = []  # sentences


class Ended(Exception):
    """The answer of HTTP is no stream."""


def events(method, path, user, body=None, headers=None):
    """(id, event) of an SSE answer, until it ends or is cut. Raises OSError, HTTPException or Ended."""
    connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body),
                           pipeline.headers({"x-user-id": user, **(headers or {})}))
        response = connection.getresponse()
        if response.status != 200:
            raise Ended(response.status, response.read().decode(errors="replace"))
        ident = data = None
        for raw in response:
            line = raw.decode().rstrip("\n")
            if line.startswith("id: "):
                ident = line[4:]
            elif line.startswith("data: "):
                data = line[6:]
            elif line == "" and data is not None:
                yield ident, json.loads(data)
                ident = data = None
    finally:
        connection.close()


class Reading:
    """One device's view of one answer: what it would show, and from where it goes on."""

    def __init__(self):
        self.text = b""
        self.place = None
        self.done = False
        self.cuts = 0

    def take(self, ident, event):
        kind = event["type"]
        if kind == "content_block_delta":
            offset = event["offset"]
            if offset > len(self.text):
                raise AssertionError(f"a hole: {len(self.text)} bytes, and a piece for byte {offset}")
            self.text = self.text[:offset] + event["delta"]["text"].encode()
        elif kind == "snapshot":
            self.text = "".join(block["text"] for block in event["message"]["content"]).encode()
        elif kind == "message_stop":
            self.done = True
        if ident:
            self.place = ident

    def follow(self, path, user):
        """To the end of the answer, over as many connections as it takes."""
        def connect():
            for ident, event in events("GET", path, user, headers={"last-event-id": self.place} if self.place else None):
                self.take(ident, event)

        self.insist(path, connect)

    def insist(self, what, connect):
        """connect(), again and again where it is cut or refused for now, until the reading is done."""
        end = time.monotonic() + PATIENCE
        while not self.done:
            try:
                connect()
            except (OSError, http.client.HTTPException):
                pass
            except Ended as ended:
                if ended.args[0] < 500:
                    raise
            if not self.done:
                self.cuts += 1
                if time.monotonic() > end:
                    raise AssertionError(f"{what} did not end within {PATIENCE} s" + pipeline.logs(8))
                time.sleep(0.1)


class User:
    def __init__(self, number):
        self.name = f"user-{number}"
        self.path = None
        self.turns = []  # (question id, answer id, text of the question, readings)
        self.feed = []  # (seq, type, message id)
        self.threads = [threading.Thread(target=self.guard, args=(call,)) for call in (self.talk, self.watch)]
        for thread in self.threads:
            thread.start()

    def guard(self, call):
        try:
            call()
        except Exception as error:  # the thread's, told at the end
            wrong.append(f"{self.name}: {type(error).__name__}: {error}")
            stopping.set()

    def begin(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                status, _, made = pipeline.request("POST", "/v1/conversations", {}, pipeline.headers({"x-user-id": self.name}), timeout=10)
                if status == 201:
                    return f"/v1/conversations/{made['id']}/messages"
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.1)
        raise AssertionError("no conversation could be begun")

    def talk(self):
        self.path = self.begin()
        while not stopping.is_set():
            self.turn("Tell me about " + uuid.uuid4().hex)

    def turn(self, text):
        """One send, said again under its key until it is through; the other devices follow from its acknowledgement on."""
        mine, key, accepted, devices = Reading(), uuid.uuid4().hex, None, []

        def send():
            nonlocal accepted, devices
            for ident, event in events("POST", self.path, self.name, {"content": text, "stream": True, "max_tokens": 90},
                                       {"idempotency-key": key}):
                if event["type"] == "message_accepted":
                    ids = (event["user_message"]["id"], event["message"]["id"])
                    if accepted is None:
                        accepted = ids
                        readings = [Reading() for _ in range(READERS)]
                        devices = [threading.Thread(target=self.guard, args=(lambda r=r: r.follow(f"{self.path}/{ids[1]}/stream", self.name),))
                                   for r in readings]
                        for device in devices:
                            device.start()
                        self.turns.append((*ids, text, [mine, *readings]))
                    elif accepted != ids:
                        raise AssertionError(f"one key, two sends: {accepted} and {ids}")
                mine.take(ident, event)

        mine.insist("a send", send)
        for device in devices:
            device.join()

    def watch(self):
        """The live feed, taken up where it was cut."""
        since = 0
        while not stopping.is_set() or (self.turns and self.turns[-1][1] not in {m for _, t, m in self.feed if t == "message.finished"}):
            if stopping.is_set() and time.monotonic() > deadline[0]:
                return
            try:
                for ident, event in events("GET", f"/v1/events?since={since}", self.name):
                    if event["type"] in ("message.created", "message.finished"):
                        self.feed.append((event["seq"], event["type"], event["message_id"]))
                    since = ident or since
                    if stopping.is_set() and self.turns and self.feed and self.feed[-1][1:] == ("message.finished", self.turns[-1][1]):
                        return
            except (OSError, http.client.HTTPException):
                pass
            except Ended as ended:
                if ended.args[0] < 500:
                    raise
            time.sleep(0.1)


deadline = [float("inf")]


def stored(user):
    rows, cursor = [], ""
    while True:
        status, _, page = pipeline.request("GET", f"{user.path}?order=asc&limit=200{cursor}", None, pipeline.headers({"x-user-id": user.name}))
        assert status == 200, page
        rows += page["data"]
        if not page["has_more"]:
            return rows
        cursor = "&cursor=" + page["next_cursor"]


def text_of(message):
    return "".join(block["text"] for block in message["content"])


def test_what_was_acknowledged_is_stored_once_and_read_by_all():
    rng = random.Random(SEED)
    print(f"      PARLEY_SEED={SEED}")
    pipeline.wait_ready()
    users = [User(n) for n in range(USERS)]
    killed = {}
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.2, 1.4))
        if stopping.is_set():
            break
        name = rng.choice(TOOLS)
        try:
            old = pipeline.kill(name)
        except (OSError, ValueError):
            continue  # dies already
        killed[name] = killed.get(name, 0) + 1
        if rng.random() < 0.5:  # else the next one may fall before this one stands
            pipeline.wait_restarted(name, old)
    time.sleep(1)
    stopping.set()
    deadline[0] = time.monotonic() + 20
    for user in users:
        for thread in user.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), (wrong, "a user waits for ever" + pipeline.logs(8))
    assert not wrong, wrong
    pipeline.wait_ready()
    turns = readings = cuts = 0
    for user in users:
        rows = stored(user)
        ids = [row["id"] for row in rows]
        assert ids == sorted(ids) and len(set(ids)) == len(ids), "ids rise, each once"
        by_id = {row["id"]: row for row in rows}
        said = [text_of(row) for row in rows if row["role"] == "user"]
        assert said == [text for _, _, text, _ in user.turns], f"{user.name}: stored and acknowledged questions differ in number, order or text"
        head = None
        for question, answer, text, devices in user.turns:
            assert text_of(by_id[question]) == text and by_id[question]["parent_id"] == head, (user.name, question)
            row = by_id[answer]
            assert row["status"] == "done" and row["parent_id"] == question, row
            for device, reading in enumerate(devices):
                assert reading.text == text_of(row).encode(), f"{user.name}, device {device}, {answer}: {reading.text!r} is not {text_of(row)!r}"
                readings += 1
                cuts += reading.cuts
            head = answer
            turns += 1
        assert len(rows) == 2 * len(user.turns), "nothing stands there that nobody said"
        seqs = [seq for seq, _, _ in user.feed]
        assert seqs == sorted(set(seqs)), f"{user.name}: the feed goes back or says something twice"
        finished = [m for _, kind, m in user.feed if kind == "message.finished"]
        assert finished == [answer for _, answer, _, _ in user.turns], (user.name, finished, [a for _, a, _, _ in user.turns])
    report = pipeline.convstore("check")
    print(f"      {sum(killed.values())} kills ({', '.join(f'{n} {c}' for n, c in sorted(killed.items()))}): {turns} turns, {readings} readings cut {cuts} times")
    assert turns >= USERS and sum(killed.values()) > 0, (turns, killed, report)
    # A few kills may all fall between two answers, or on tools that nobody reads from.
    assert cuts > 0 or sum(killed.values()) < 20, (turns, cuts, killed)


if __name__ == "__main__":
    with pipeline:
        run_tests(globals())
