#!/usr/bin/env python3
"""How many devices of a user are connected, as each of them is told, over two chatd: coming, going, a killed chatd, others' users."""
import os
import threading
import time

from harness import Pipeline, Stream, run_tests
from second_chatd import SecondChatd
from websocket_client import WebSocket

pipeline = Pipeline(PARLEY_MODEL="/none", PARLEY_SIMULATE="--simulate-speed=100")


class Device:
    def __init__(self, user, to=None):
        self.stream = Stream(to or pipeline, "/v1/events", None, pipeline.headers({"x-user-id": user}), method="GET")
        assert self.stream.status == 200, self.stream.error
        threading.Thread(target=self.stream.read, daemon=True).start()

    @property
    def told(self):
        return [(ident, event["devices"]) for ident, event in self.stream.events if event["type"] == "presence"]

    def wait(self, devices, limit=5):
        end = time.monotonic() + limit
        while not self.told or self.told[-1] != (None, devices):
            assert time.monotonic() < end, (devices, self.told)
            time.sleep(0.02)

    def leave(self):
        self.stream.connection.sock.shutdown(2)


def test_devices_come_and_go_over_two_chatd_and_a_killed_one_counts_no_more():
    first, stranger = Device("ann"), Device("bob")
    first.wait(1)
    stranger.wait(1)
    with SecondChatd(pipeline) as second:
        there, also = Device("ann", second), Device("ann", second)
        for device in (first, there, also):
            device.wait(3)
        also.leave()
        first.wait(2)
        there.wait(2)
        ws = WebSocket(pipeline, {"x-user-id": "ann"})
        ws.send(type="subscribe", ref="f")
        while ws.read().get("event") != "presence":
            pass
        assert ws.messages[-1]["data"] == {"type": "presence", "devices": 3} and "id" not in ws.messages[-1], ws.messages[-1]
        first.wait(3)
        ws.socket.close()
        first.wait(2)
        second.process.kill()
        second.process.wait()
        first.wait(1)
    assert stranger.told == [(None, 1)], stranger.told
    left = [n for n in os.listdir(pipeline.state + "/run") if n.endswith(".presence")]
    assert len(left) == 1, left
    first.leave()


def test_one_that_comes_back_at_once_was_never_away():
    watcher, other = Device("carl"), Device("carl")
    watcher.wait(2)
    before = len(watcher.told)
    for _ in range(20):
        fresh = Device("carl")
        other.leave()
        other = fresh
    time.sleep(1)
    assert watcher.told[-1] == (None, 2) and len(watcher.told) - before < 12, watcher.told


if __name__ == "__main__":
    try:
        pipeline.wait_ready()
        run_tests(globals())
    finally:
        pipeline.stop()
