"""A rollout between two real models: golden prompts that the new one answers otherwise stop it before a client meets it; its own, recorded
once, let it through every stage."""

import json
import os
import subprocess
import tempfile
import time

import harness
from harness import check

harness.need_model()
GEMMA = os.path.join(os.path.dirname(harness.MODEL), "gemma3-270m-q4_k_m.gguf")
if not os.path.isfile(GEMMA):
    harness.skip("no Gemma 3 270M: bash examples/fetch_gemma3.sh fetches it")

PROMPTS = ["The capital of France is", "One, two, three,"]
pipeline = harness.Pipeline(PARLEY_MODEL=harness.MODEL, ROUTER_ROLLOUT_REQUESTS_MIN=4, ROUTER_ROLLOUT_MIN_TIME="0s", ROUTER_ROLLOUT_BASELINE=2,
                            ROUTER_ROLLOUT_TTFT_RATIO=1000, ROUTER_ROLLOUT_ITL_RATIO=1000)
env = dict(os.environ, PARLEY_STATE=pipeline.state)
log = open(os.path.join(pipeline.state, "log", "gemma.log"), "w")
gemma = subprocess.Popen([os.path.join(harness.BIN, "infer-worker"), "serve", "--name", "gemma", "--model", GEMMA, "--model-name", "gemma",
                          "--chat-template", "raw"], env=env, stdout=log, stderr=log)


def router(*arguments):
    return subprocess.run([os.path.join(harness.BIN, "router"), *arguments], capture_output=True, text=True, timeout=120, env=env)


def rollout():
    return json.loads(router("rollout", "status", "--json", "latest").stdout.splitlines()[-1])


def answer(prompt, model):
    status, _, got = pipeline.request("POST", "/v1/messages", {"model": model, "max_tokens": 8, "temperature": 0, "messages": [
        {"role": "user", "content": prompt}]})
    assert status == 200, got
    return got["content"][0]["text"]


def start(answers):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for prompt, text in zip(PROMPTS, answers):
            file.write(json.dumps({"prompt": prompt, "expect": text, "max_tokens": 8}) + "\n")
        file.flush()
        return router("rollout", "start", "latest", "gemma", "--golden", file.name, "--stages", "50,100")


def test_two_models():
    end = time.monotonic() + 20
    while "gemma" not in router("model", "list").stdout and time.monotonic() < end:
        time.sleep(0.1)
    assert router("alias", "set", "latest", pipeline.model).returncode == 0
    time.sleep(1)
    stable = [answer(p, "latest") for p in PROMPTS]
    golden = [answer(p, "gemma") for p in PROMPTS]
    check("the two answer otherwise", stable != golden, (stable, golden))
    done = start(golden)
    check("a version that answers as recorded takes traffic", done.returncode == 0 and rollout()["state"] == "running", done)
    seen = set()
    for i in range(40):
        seen.add(answer(f"{PROMPTS[0]} {i}", "latest"))
        if rollout()["state"] != "running":
            break
    check("it takes over", rollout()["state"] == "done", rollout())
    check("then the alias answers as it does", answer(PROMPTS[0], "latest") == golden[0])
    assert router("alias", "rollback", "latest").returncode == 0
    time.sleep(1)
    check("one command goes back", answer(PROMPTS[0], "latest") == stable[0])
    done = start([golden[0] + "!", golden[1]])
    check("one wrong byte of a golden answer stops it", done.returncode != 0 and "1 of 2 golden prompts" in done.stderr, done)
    check("nobody met it", rollout()["state"] == "rolled_back" and rollout()["of_canary"]["requests"] == 0, rollout())
    check("and it is not taken again", start(golden).returncode != 0)


if __name__ == "__main__":
    try:
        harness.run_tests(globals())
    finally:
        gemma.kill()
        pipeline.stop()
