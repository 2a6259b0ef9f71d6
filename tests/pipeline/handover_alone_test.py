"""Streams whose worker is lost while there is no other: they wait at the head of their flow and go on when one comes, or end once, typed
and retryable, with what was delivered."""

import json
import os
import resource
import signal
import threading
import time

import harness

STREAMS = 8
STALL_S = 4
harness.need_model()
pipeline = harness.Pipeline(PARLEY_WORKERS=1, CHATD_STALL=f"{STALL_S}s", ROUTER_STALL=f"{STALL_S}s")
PROMPTS = ["Why is the sky blue?", "What is gravity?", "Tell me a story about a fox.", "How does a clock work?"]
uncut = {}


def body(i):
    return pipeline.body(PROMPTS[i % len(PROMPTS)] + f" ({i})", stream=True, max_tokens=250)


def streams(disturb):
    if not uncut:
        for i, stream in enumerate(harness.in_threads(STREAMS, lambda i: pipeline.stream("/v1/messages", body(i)))):
            assert stream.end == "done", (stream.end, stream.error)
            uncut[i] = stream.text
    begun = threading.Barrier(STREAMS + 1)

    def one(i):
        def on_event(stream, event):
            if len(stream.events) == 12:
                begun.wait(60)

        return pipeline.stream("/v1/messages", body(i), on_event=on_event)

    disturber = threading.Thread(target=lambda: (begun.wait(60), disturb()))
    disturber.start()
    out = harness.in_threads(STREAMS, one)
    disturber.join()
    return out


def all_uncut(out):
    for i, stream in enumerate(out):
        assert stream.end == "done", (i, stream.end, stream.error)
        harness.check_grammar(stream.types())
        assert stream.text == uncut[i], f"stream {i} is not the uncut one"


def test_streams_wait_for_the_worker_to_come_again():
    old = []
    out = streams(lambda: old.append(pipeline.kill("infer-worker-0")))
    pipeline.wait_restarted("infer-worker-0", old[0])
    all_uncut(out)


def test_a_worker_that_aborts_is_lost_and_its_streams_go_on():
    """The kernel's own end for want of memory is SIGKILL, above; an allocation that fails and is not caught ends in SIGABRT."""
    old = []

    def disturb():
        resource.prlimit(pipeline.pid("infer-worker-0"), resource.RLIMIT_CORE, (0, 0))
        old.append(pipeline.kill("infer-worker-0", signal.SIGABRT))

    out = streams(disturb)
    pipeline.wait_restarted("infer-worker-0", old[0])
    all_uncut(out)


def test_without_any_worker_a_stream_ends_once_typed_with_what_was_delivered():
    pid = pipeline.pid("infer-worker-0")
    start = []

    def disturb():
        start.append(time.monotonic())
        os.kill(pid, signal.SIGSTOP)

    try:
        out = streams(disturb)
        took = time.monotonic() - start[0]
        for i, stream in enumerate(out):
            assert stream.end == "error", (i, stream.end, stream.error)
            assert stream.types().count("error") == 1 and stream.types()[-1] == "error", stream.types()[-3:]
            assert stream.error["type"] == "overloaded_error", stream.error
            assert stream.text and uncut[i].startswith(stream.text), "what was delivered is the beginning of the answer"
        print(f"      {STREAMS} streams without a worker: each ends with {json.dumps(out[0].error)} after {took:.1f} s")
        assert STALL_S - 1 <= took <= 2 * STALL_S + 4, took
    finally:
        os.kill(pid, signal.SIGCONT)
    # And then it is as before.
    end = time.monotonic() + 15
    while pipeline.message("Hello.", max_tokens=2)[0] != 200:
        assert time.monotonic() < end, pipeline.logs()
        time.sleep(0.2)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        pipeline.stop()
