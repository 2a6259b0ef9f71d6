"""Faults that only statistics see, in the real pipeline with simulated workers: 2 points more errors, and answers stopped by the real
filter half and one and a half times as often. Each is rolled back by itself, with the reason in words. Times decide nothing here."""

import os
import tempfile

import harness
import rollouts
from harness import check

# The rate of stopped answers follows from a word that they may not hold and from their length.
policy = tempfile.NamedTemporaryFile("w", suffix=".toml")
policy.write(open(os.path.join(harness.ROOT, "examples", "policy.toml")).read() + """
[[rule]]
id = "test.word"
side = "output"
pattern = "(?i)\\\\b(?:nostrud|dolor|magna|labore)\\\\b"
action = "block"
owner = "tests"
""")
policy.flush()
LENGTH = 14
r = rollouts.Rollouts(f"--simulate-speed 200 --simulate-tokens {LENGTH}", PARLEY_POLICY=policy.name, ROUTER_ROLLOUT_REQUESTS_MIN=200,
                      ROUTER_ROLLOUT_MIN_TIME="60s", ROUTER_ROLLOUT_BASELINE=50, ROUTER_ROLLOUT_TTFT_RATIO=1000, ROUTER_ROLLOUT_ITL_RATIO=1000)


def version(name, *options):
    r.worker(name, "--simulate", "--simulate-speed", "200", "--model-name", "simulated-" + name, *options)


def rolled_back(sentence, salt, limit, word, **members):
    asked = r.ask_until_decided(salt, limit, threads=16, **members)
    seen = r.rollout()
    print(f"      {asked} requests, {seen['of_canary']['requests']} of the canary's: {seen['steps'][-1]['why']}")
    check(sentence, seen["state"] == "rolled_back" and word in seen["steps"][-1]["why"], seen)


def test_the_alias_answers():
    assert r.router("alias", "set", "latest", r.status()["workers"][0]["models"][0]).returncode == 0
    assert harness.until(lambda: set(r.statuses(16, "warm")) == {200})


def test_two_points_more_errors_are_rolled_back():
    version("failing", "--simulate-tokens", str(LENGTH - 1), "--simulate-fail-every", "50")
    r.start("simulated-failing", "--stages", "50,100")
    # A promotion waits for time, too, a rollback does not: how many requests the evidence takes is chance, and none of it may be cut.
    rolled_back("2 points more errors are rolled back", "errors", 4000, "of its requests fail", max_tokens=4)


def test_filters_that_stop_half_as_many_are_rolled_back():
    version("short", "--simulate-tokens", "9")
    r.start("simulated-short", "--stages", "50,100")
    rolled_back("filter triggers times 0.5 are rolled back", "short", 3000, "filters stop only", max_tokens=64)


def test_filters_that_stop_more_are_rolled_back():
    version("long", "--simulate-tokens", "22")
    r.start("simulated-long", "--stages", "50,100")
    rolled_back("filter triggers times 1.5 are rolled back", "long", 4000, "times as many of its answers", max_tokens=64)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        r.stop()
