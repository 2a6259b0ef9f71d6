"""Rollouts in the real pipeline, with simulated workers: one version takes the place of another by stages; one that answers otherwise,
fails or dies is taken back, with the reason in words, and a restart of the router forgets nothing. The faults are simulated, by options
of the simulated engine or by kill; everything else is what runs in service. Times decide nothing here: beside other tests they are
the machine's, not the version's."""

import json
import os
import signal
import subprocess
import tempfile
import time

import harness
import rollouts
from harness import check, until

r = rollouts.Rollouts("--simulate-speed 50 --simulate-tokens 16", PARLEY_WORKERS=1, ROUTER_ROLLOUT_REQUESTS_MIN=25,
                      ROUTER_ROLLOUT_BASELINE=50, ROUTER_ROLLOUT_TTFT_RATIO=1000, ROUTER_ROLLOUT_ITL_RATIO=1000)
pipeline, router, status, rollout, aliases, ask = r.pipeline, r.router, r.status, r.rollout, r.aliases, r.statuses


def worker(name, *options):
    return r.worker(name, "--simulate", "--simulate-speed", "50", "--model-name", name, *options)


def test_aliases_point_at_versions_only_and_go_back():
    first = status()["workers"][0]["models"][0]
    worker("simulated-good", "--simulate-tokens", "17")
    assert until(lambda: "simulated-good" in router("model", "list").stdout)
    done = router("alias", "set", "latest", "nobody")
    check("an alias to an unregistered target is refused", done.returncode != 0 and "nobody" in done.stderr, done)
    done = router("alias", "set", "latest", first, "--why", "the start")
    check("an alias is set", done.returncode == 0, done)
    assert router("alias", "set", "latest", "simulated-good").returncode == 0
    done = router("alias", "rollback", "latest")
    check("an alias goes back to what it was", done.returncode == 0 and aliases()["latest"]["target"] == first, done)
    history = aliases()["latest"]["history"]
    check("the history says why", [h["why"] for h in history] == ["the start", "", "rollback"], history)
    done = router("alias", "rollback", "nothing")
    check("an alias that is none is not rolled back", done.returncode != 0, done)
    check("the alias answers within a second", until(lambda: ask(8, "warm") == [200] * 8, 1.5))


def test_without_a_router_it_is_said_soon():
    with tempfile.TemporaryDirectory() as empty:
        start = time.monotonic()
        done = subprocess.run([os.path.join(harness.BIN, "router"), "rollout", "start", "latest", "any"], capture_output=True, text=True,
                              timeout=60, env=dict(os.environ, PARLEY_STATE=empty))
        took = time.monotonic() - start
    check("no router: status 69 within seconds, not after the time of golden prompts", done.returncode == 69 and took < 10 and
          "is it running?" in done.stderr, (done, took))


def test_garbage_meets_no_client():
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(json.dumps({"prompt": "2 + 2", "expect": "4", "max_tokens": 8}) + "\n")
        file.flush()
        worker("simulated-garbage", "--simulate-tokens", "18")
        done = router("rollout", "start", "latest", "simulated-garbage", "--golden", file.name)
    check("golden prompts stop a version before it takes traffic", done.returncode != 0 and "golden" in done.stderr, done)
    seen = rollout()
    check("it is rolled back, and nobody met it", seen["state"] == "rolled_back" and seen["of_canary"]["requests"] == 0, seen)
    done = router("rollout", "start", "latest", "simulated-garbage")
    check("the same version is not taken again", done.returncode != 0 and "rolled back" in done.stderr, done)


def test_errors_roll_back():
    worker("simulated-failing", "--simulate-tokens", "19", "--simulate-fail-every", "2")
    done = router("rollout", "start", "latest", "simulated-failing", "--stages", "50,100")
    assert done.returncode == 0, done
    ask(96, "errors")
    seen = rollout()
    why = seen["steps"][-1]["why"]
    check("a version that fails every second request is rolled back", seen["state"] == "rolled_back" and "fail" in why, seen)
    check("few met it", seen["of_canary"]["requests"] <= 40, seen)
    check("then all is as before", ask(16, "after") == [200] * 16)


def test_a_version_that_dies_rolls_back():
    worker("simulated-dying", "--simulate-tokens", "21")
    assert router("rollout", "start", "latest", "simulated-dying", "--stages", "5,100").returncode == 0
    for _ in range(3):
        r.workers["simulated-dying"].kill()
        r.workers["simulated-dying"].wait()
        assert until(lambda: "simulated-dying" not in [w["name"] for w in status()["workers"]])
        if rollout()["state"] == "running":
            worker("simulated-dying", "--simulate-tokens", "21")
    check("three lost workers roll a version back", until(lambda: rollout()["state"] == "rolled_back", 3) and
          "lost 3 times" in rollout()["steps"][-1]["why"], rollout())


def test_a_good_version_takes_over_by_stages_and_over_a_restart():
    done = router("rollout", "start", "latest", "simulated-good", "--stages", "shadow,20,person:50,100", "--why", "new")
    assert done.returncode == 0, done
    done = router("rollout", "start", "latest", "simulated-good")
    check("there is one rollout an alias", done.returncode != 0 and "running" in done.stderr, done)
    for i in range(20):
        ask(64, f"shadow {i}")
        if rollout()["stage"] > 0:
            break
    check("shadow copies are counted and the stage is left", rollout()["share"] == 0.2, rollout())
    for i in range(6):
        ask(64, f"good {i}")
    seen = rollout()
    check("a person's gate holds", seen["share"] == 0.2 and "a person decides" in seen["holds"], seen)
    time.sleep(1.2)
    counted = rollout()["of_canary"]["requests"]
    pid = pipeline.kill("router", signal.SIGKILL)
    pipeline.wait_restarted("router", pid)
    assert until(lambda: router("status", "--json").returncode == 0 and len(status()["workers"]) >= 2, 15)
    seen = rollout()
    check("a killed router goes on where it was", seen["share"] == 0.2 and seen["of_canary"]["requests"] == counted, seen)
    assert until(lambda: ask(8, "again") == [200] * 8, 15)
    done = router("rollout", "promote", "latest", "--why", "looks well")
    check("a person promotes", done.returncode == 0 and rollout()["share"] == 0.5, done)
    for i in range(6):
        ask(64, f"half {i}")
    check("the last stage ends it", rollout()["state"] == "done", rollout())
    good = rollout()["canary"]
    check("the alias points at the new version", until(lambda: aliases()["latest"]["target"] == good, 3), aliases())
    whys = " ".join(h["why"] for h in aliases()["latest"]["history"])
    check("the store's history tells of every step", "looks well" in whys and "done" in whys and "started" in whys, whys)
    check("the steps are told", "looks well" in router("rollout", "history", "latest").stdout)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        r.stop()
