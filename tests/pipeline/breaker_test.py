"""A worker on which a version fails again and again gets no more requests of it: the breaker opens, probes, and opens again, while the
other worker answers all. The fault is simulated by infer-worker --simulate-fail-every."""

import time

import harness
import rollouts
from harness import check

r = rollouts.Rollouts("--simulate-speed 50 --simulate-tokens 16", ROUTER_BREAKER_ERRORS=4, ROUTER_BREAKER_OPEN="2s", ROUTER_BREAKER_PROBES=1)


def breaker():
    found = [b for b in r.status()["breakers"] if b["worker"] == "bad"]
    return found[0] if found else None


def test_a_worker_that_fails_is_left_alone_until_probes_end_well():
    bad = r.worker("bad", "--simulate", "--simulate-speed", "50", "--simulate-tokens", "16", "--simulate-fail-every", "1")
    first = r.statuses(64, "first", threads=8, model=r.pipeline.model)
    check("the breaker opens after a few failures", breaker() is not None and breaker()["state"] == "open", r.status()["breakers"])
    check("few requests met it", first.count(200) >= 48, first)
    then = r.statuses(64, "then", threads=8, model=r.pipeline.model)
    check("then the other worker answers all", then.count(200) >= 63, then)
    check("status shows it", "bad" in r.router("status").stdout.split("BREAKER")[-1], r.router("status").stdout)
    check("a probe that fails opens it again", harness.until(
        lambda: r.statuses(8, "probe", model=r.pipeline.model) and breaker()["opened"] >= 2, 10), breaker())
    bad.terminate()
    bad.wait()
    r.worker("bad", "--simulate", "--simulate-speed", "50", "--simulate-tokens", "16")
    end = time.monotonic() + 15
    while breaker()["state"] != "closed" and time.monotonic() < end:
        r.ask(16, f"well {end - time.monotonic()}", threads=8, model=r.pipeline.model)
    check("a worker that is well again gets requests", breaker()["state"] == "closed", breaker())


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        r.stop()
