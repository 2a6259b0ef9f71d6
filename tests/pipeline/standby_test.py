"""Two routers on one state folder: one serves, the other waits and takes over. No stream is lost, every text is the uncut one, and
what each organization has used is known to the successor."""

import os
import signal
import subprocess
import time

import fair_test
import harness

BIN = harness.BIN
STREAMS = 16
PROMPTS = ["Why is the sky blue?", "What is gravity?", "Explain what a computer is.", "Tell me a story about a fox."]
harness.need_model()
pipeline = harness.Pipeline(PARLEY_WORKERS=2, PARLEY_ROUTERS=2)
uncut = []


def routers():
    """(pid of the one that serves, of the one that waits), by what their logs say last."""
    serves = waits = None
    for name in ("router", "router-1"):
        with open(os.path.join(pipeline.state, "log", name + ".log")) as log:
            said = [line for line in log if "event=router." in line]
        if said and "event=router.standby" in said[-1]:
            waits = pipeline.pid(name)
        elif said and "event=router.ready" in said[-1]:
            serves = pipeline.pid(name)
    return serves, waits


def both(limit=15):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pair = routers()
        if all(pair) and pair[0] != pair[1]:
            return pair
        time.sleep(0.05)
    raise AssertionError("there are not one router that serves and one that waits" + pipeline.logs())


def body(i):
    return pipeline.body(PROMPTS[i % len(PROMPTS)] + f" ({i})", stream=True, max_tokens=250)


def under(disturb):
    """Disturbs while 16 greedy streams run; returns the longest pause between two events of any."""
    if not uncut:
        uncut.extend(harness.uncut_texts(pipeline, body, STREAMS))
    return harness.disturbed(pipeline, body, uncut, disturb)


def serves_after(pid, limit=2):
    """Seconds until another than `pid` serves."""
    start = time.monotonic()
    while time.monotonic() < start + limit:
        serves, _ = routers()
        if serves not in (None, pid):
            return time.monotonic() - start
        time.sleep(0.01)
    raise AssertionError(f"nobody has taken over within {limit} s" + pipeline.logs())


def taken_over(number, limit=2):
    serves, waits = both()
    took = []

    def disturb():
        os.kill(serves, number)
        took.append(serves_after(serves, limit))

    pause = under(disturb)
    assert both()[0] == waits, "the one that waited serves"
    print(f"      {number.name}: taken over in {took[0] * 1000:.0f} ms; {STREAMS} streams, 0 lost, every text the uncut one; longest pause {pause:.2f} s")


def test_a_killed_router_loses_no_stream():
    taken_over(signal.SIGKILL)


def test_a_drained_router_hands_its_streams_over():
    taken_over(signal.SIGTERM)


def test_a_router_that_stands_still_is_killed_by_the_one_that_waits():
    taken_over(signal.SIGSTOP, limit=4)  # 1.5 s without a beat, then as if killed


def test_one_that_does_not_stand_by_is_refused_by_the_name_of_who_serves():
    serves, _ = both()
    done = subprocess.run([os.path.join(BIN, "router"), "serve"], env=dict(os.environ, PARLEY_STATE=pipeline.state), capture_output=True, text=True, timeout=10)
    assert done.returncode == 75 and f"process {serves} serves" in done.stderr, (done.returncode, done.stderr)
    assert pipeline.message("Hello.", max_tokens=4)[0] == 200


def test_the_successor_knows_what_each_has_used():
    org = fair_test.Org(pipeline, "busy", 1)
    for _ in range(3):
        assert org.ask(60)[1].end == "done"
    time.sleep(1.5)  # it is saved every second
    before = fair_test.flows(pipeline)[org.id]["used_s"]
    serves, _ = both()
    os.kill(serves, signal.SIGKILL)
    both()
    assert org.ask(4)[1].end == "done"  # a flow is known from its first request on
    after = fair_test.flows(pipeline)[org.id]["used_s"]
    assert before > 0 and before <= after <= 1.5 * before, (before, after)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        pipeline.stop()
