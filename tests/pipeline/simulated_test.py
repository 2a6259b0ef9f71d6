#!/usr/bin/env python3
"""The simulated model in whole processes: named as what it is, with the ways of a real one, and many at once. No model file."""

import json
import os
import subprocess
import threading
import time
import urllib.request

import harness

BUILD = os.path.join(harness.ROOT, os.environ.get("PARLEY_BUILD", "build"))
BIN = os.path.join(BUILD, "bin")
STREAMS = 500
NO_MODEL = "/no/such/model.gguf"


def worker(*arguments, stdin="", **env):
    return subprocess.run([os.path.join(BIN, "infer-worker"), *arguments], input=stdin, capture_output=True, text=True,
                          timeout=60, env=dict(os.environ, PARLEY_MODEL=NO_MODEL, **env))


def ask(text, **members):
    return json.dumps({"model": "simulated", "max_tokens": 64, "messages": [{"role": "user", "content": text}], **members}) + "\n"


def pipeline(*options):
    return harness.Pipeline(PARLEY_MODEL=NO_MODEL, PARLEY_SIMULATE=" ".join(options))


def test_run_without_a_model():
    """`run --simulate` answers without any file, says that it simulates, and gives the same for the same seed."""
    first = worker("run", "--simulate", "--simulate-speed", "100", "--text", "--seed", "7", stdin=ask("Hello"))
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Simulated answer: "), first.stdout
    assert "worker.simulated" in first.stderr, first.stderr
    again = worker("run", "--simulate", "--simulate-speed", "1000", "--text", "--seed", "7", stdin=ask("Hello"))
    assert again.stdout == first.stdout, "the speed changes no text"
    other = worker("run", "--simulate", "--simulate-speed", "1000", "--text", "--seed", "8", stdin=ask("Hello"))
    assert other.stdout != first.stdout
    lines = worker("run", "--simulate", "--simulate-speed", "1000", "--seed", "7", stdin=ask("Hello")).stdout.splitlines()
    end = json.loads(lines[-1])
    assert end["verb"] == "END" and bytes.fromhex(end["meta"]["model"]).startswith(b"simulated"), end


def test_run_is_paced():
    """Time passes as the options say, and the processor sleeps meanwhile."""
    before, start = os.times(), time.monotonic()
    done = worker("run", "--simulate", "--simulate-tokens", "0", "--simulate-step-us", "20000", "--simulate-row-us", "0",
                  "--text", stdin=ask("Hello", max_tokens=50))
    took, after = time.monotonic() - start, os.times()
    assert done.returncode == 0, done.stderr
    assert took > 50 * 0.020, took
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used < took / 2, (used, took)


def test_names_that_hide_it_are_refused():
    """--model-name cannot make a simulated worker look like a model."""
    done = worker("serve", "--simulate", "--model-name", "smollm2", "--bind", "ipc:///nowhere/x.sock")
    assert done.returncode == 64 and "simulated" in done.stderr, (done.returncode, done.stderr)


def test_whole_chain_is_one_of_any_model():
    """Name, text, counting, max_tokens and end_turn come through the chain; a killed worker costs a pause, not the answer."""
    with pipeline("--simulate-tokens=0") as p:
        assert p.model == "simulated", p.model
        status, _, counted = p.request("POST", "/v1/messages/count_tokens",
                                       {"model": p.model, "messages": [{"role": "user", "content": "What is the time?"}]})
        assert status == 200, counted
        status, _, message = p.message("What is the time?", max_tokens=20)
        assert status == 200, message
        assert message["content"][0]["text"].startswith("Simulated answer:"), message
        assert message["usage"]["input_tokens"] == counted["input_tokens"], (message, counted)
        assert message["usage"]["output_tokens"] == 20 and message["stop_reason"] == "max_tokens", message

        body = p.body("Tell me a long story.", max_tokens=400, stream=True)
        whole = p.stream("/v1/messages", body)
        assert whole.end == "done", whole.error
        killed = []

        def kill(stream, _):
            if len(stream.events) == 60:
                killed.append(p.kill("infer-worker-0"))

        broken = p.stream("/v1/messages", body, on_event=kill)
        assert killed, "the worker was not killed in mid-answer"
        assert broken.end == "done", (broken.end, broken.error)
        assert broken.text == whole.text, "the second worker did not go on where the first had stopped"
        harness.check_grammar(broken.types())


def test_hundreds_of_streams():
    """500 streams at once through filter, router and one simulated worker all end well."""
    with pipeline("--simulate-speed=2", "--simulate-tokens=40", f"--slots-max={STREAMS}", "--kv-blocks=32768") as p:
        key = os.path.join(p.state, "pipeline.key")
        load = subprocess.Popen([os.path.join(BIN, "loadgen"), "run", "--url", p.info["url"], "--key-file", key, "--model", p.model,
                                 "--prompts", os.path.join(harness.ROOT, "examples/loadgen/lines.txt"), "--max-tokens", "80",
                                 "--concurrency", str(STREAMS), "--requests", str(2 * STREAMS), "--json"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running = []

        def watch():
            while load.poll() is None:
                running.append(metric(p, "infer-worker-0", "infer_worker_running"))
                time.sleep(0.3)
        watcher = threading.Thread(target=watch)
        watcher.start()
        out, err = load.communicate(timeout=240)
        watcher.join()
        assert load.returncode == 0, err
        report = json.loads(out)
        print("     ", out.strip()[:1500])
        print("      running at most:", max(running))
        assert metric(p, "infer-worker-0", "infer_worker_simulated") == 1
        assert max(running) > STREAMS * 0.8, running
        requests = report["requests"]
        assert requests["completed"] == 2 * STREAMS and requests["failed"] == requests["cut_off"] == 0, report
        assert set(report["stop_reasons"]) == {"end_turn", "max_tokens"}, report["stop_reasons"]


def metric(p, tool, name):
    with urllib.request.urlopen(f"http://{p.info['metrics'][tool]}/metrics", timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
    return -1


if __name__ == "__main__":
    harness.run_tests(globals())
