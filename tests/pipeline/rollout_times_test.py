"""First tokens half as late again are rolled back by themselves; a version as good goes through every stage with all gates on. Simulated
workers, whose iterations take so long that the times are theirs and not the machine's."""

import harness
import rollouts
from harness import check

COST = ["--simulate-row-us", "0", "--simulate-prefill-us", "0", "--simulate-context-us", "0"]
STEP_US = 100_000  # TTFT is one to two iterations
r = rollouts.Rollouts(f"--simulate-tokens 0 --simulate-step-us {STEP_US} {' '.join(COST)}", ROUTER_ROLLOUT_REQUESTS_MIN=40,
                      ROUTER_ROLLOUT_BASELINE=100)


def version(name, step_us, tokens):
    r.worker(name, "--simulate", "--simulate-tokens", str(tokens), "--simulate-step-us", str(step_us), *COST,
             "--model-name", "simulated-" + name)


def test_first_tokens_half_as_late_again_are_rolled_back():
    assert r.router("alias", "set", "latest", r.status()["workers"][0]["models"][0]).returncode == 0
    assert harness.until(lambda: set(r.statuses(16, "warm", max_tokens=2)) == {200})
    version("slow", STEP_US * 3 // 2, 500)
    r.start("simulated-slow", "--stages", "20,100")
    asked = r.ask_until_decided("slow", 1500, threads=32, max_tokens=2)
    seen = r.rollout()
    print(f"      {asked} requests, {seen['of_canary']['requests']} of the canary's: {r.why()}")
    check("first tokens 50 % later are rolled back", seen["state"] == "rolled_back" and "first token" in r.why(), seen)


def test_a_version_as_good_goes_through_every_stage():
    version("good", STEP_US, 600)
    r.start("simulated-good", "--stages", "30,person:50,100", "--why", "as good")
    r.ask_until_decided("good", 1200, threads=32, stage=0, max_tokens=2)
    for i in range(12):
        if "a person decides" in r.rollout()["holds"]:
            break
        r.ask(64, f"more {i}", threads=32, max_tokens=2)
    seen = r.rollout()
    check("it waits for a person", seen["stage"] == 0 and "a person decides" in seen["holds"], seen)
    assert r.router("rollout", "promote", "latest", "--why", "seen").returncode == 0
    asked = r.ask_until_decided("half", 1500, threads=32, max_tokens=2)
    seen = r.rollout()
    print(f"      {asked} requests in the last stage: {r.why()}")
    check("it takes over", seen["state"] == "done", seen)
    check("the alias follows", harness.until(lambda: r.aliases()["latest"]["target"] == seen["canary"], 3), r.aliases())


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        r.stop()
