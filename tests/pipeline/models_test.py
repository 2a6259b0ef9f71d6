#!/usr/bin/env python3
"""Several models in one worker: both answer, one is loaded and unloaded beside running streams, and the memory comes back."""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

import harness

BIN = harness.BIN


def other_version(folder, name="second.Q4_1.gguf"):
    """The same weights under another general.name: another hash, the same answers."""
    path = os.path.join(folder, name)
    shutil.copyfile(harness.MODEL, path)
    with open(path, "r+b") as file:
        head = file.read(65536)
        at = head.index(b"Smollm2 135M")
        file.seek(at)
        file.write(("%-12.12s" % os.path.basename(name)).encode())
    return path


def control(p, verb, *arguments):
    done = subprocess.run([os.path.join(BIN, "infer-worker"), verb, *arguments, "--state", p.state],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def resident_mib(p):
    with open(f"/proc/{p.pid('infer-worker-0')}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


def until(what, test, limit=20):
    end = time.monotonic() + limit
    while not test():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def log(p):
    with open(os.path.join(p.state, "log", "infer-worker-0.log")) as file:
        return file.read()


def gaps_ms(stamps):
    return sorted((b - a) * 1000 for a, b in zip(stamps, stamps[1:]))


def test_load_and_unload_beside_a_running_stream():
    """Loaded at run time, it answers at once; the running streams' text is the undisturbed one; unloading frees the memory."""
    folder = tempfile.mkdtemp(prefix="parley-models-")
    second = other_version(folder)
    with harness.Pipeline(PARLEY_MODEL=harness.MODEL) as p:
        body = p.body("Write a long story about the sea.", max_tokens=400, stream=True)
        alone_stamps = []
        alone = p.stream("/v1/messages", body, on_event=lambda *_: alone_stamps.append(time.monotonic()))
        assert alone.end == "done", alone.error
        before = resident_mib(p)

        stamps, began, loaded = [], threading.Event(), []

        def seen(stream, _):
            stamps.append(time.monotonic())
            if len(stream.events) == 40:
                began.set()

        def load():  # not in the reading thread: starting a process would count as a gap
            began.wait(30)
            loaded.append(control(p, "load", second, "--model-name", "second"))
        loader = threading.Thread(target=load)
        loader.start()
        beside = p.stream("/v1/messages", body, on_event=seen)
        loader.join()
        assert beside.end == "done", beside.error
        code, reply = loaded[0]
        assert code == 0 and reply["ok"], reply
        assert beside.text == alone.text, "loading changed what was being answered"
        quiet, busy = gaps_ms(alone_stamps), gaps_ms(stamps)
        print(f"      gaps alone: p50 {statistics.median(quiet):.1f} max {quiet[-1]:.1f} ms; "
              f"while loading: p50 {statistics.median(busy):.1f} max {busy[-1]:.1f} ms")
        assert busy[-1] < quiet[-1] + 300, "loading held the running stream up: it takes longer than that by itself"

        code, listed = control(p, "models")
        assert code == 0 and [m["name"] for m in listed["models"]] == [p.model, "second"], listed
        def second_answers():
            status, _, message = p.request("POST", "/v1/messages", {**body, "stream": False, "model": "second", "max_tokens": 8})
            return status == 200 and message["content"][0]["text"] == alone.text[:len(message["content"][0]["text"])]
        until("the router and chatd never learned of the second model", second_answers)
        both = resident_mib(p)

        unloaded = []

        def unload(stream, _):
            if len(stream.events) == 40:
                unloaded.append(control(p, "unload", "second"))
        finished = p.stream("/v1/messages", {**body, "model": "second"}, on_event=unload)
        assert unloaded and unloaded[0][0] == 0 and unloaded[0][1]["hash"] == reply["hash"], unloaded
        assert finished.end == "done" and finished.text == alone.text, "the running stream did not finish as it should"
        until("the model was not freed", lambda: "worker.unloaded" in log(p))
        after = resident_mib(p)
        print(f"      resident: {before:.0f} MiB with one, {both:.0f} with two, {after:.0f} after unloading")
        assert both > before + 50, (before, both)
        assert after < before + 16, (before, both, after)

        status, _, refused = p.request("POST", "/v1/messages", {**body, "stream": False, "model": "second"},
                                       {**p.headers(), "x-slo-ttft-ms": "500"})
        assert status == 529 and refused["error"]["type"] == "overloaded_error", (status, refused)
        code, answer = control(p, "unload", "second")
        assert code == 70 and answer == {"ok": False, "error": "'second' is not served here"}, answer
        code, answer = control(p, "unload", p.model)
        assert code == 70 and "is the last model" in answer["error"], answer
        code, answer = control(p, "load", harness.MODEL)
        assert code == 70 and "is served already" in answer["error"], answer
        garbage = os.path.join(folder, "garbage.gguf")
        open(garbage, "w").write("no model")
        code, answer = control(p, "load", garbage)
        assert code == 70 and "garbage.gguf" in answer["error"], answer
        code, answer = control(p, "load", os.path.join(folder, "none.gguf"))
        assert code == 66, (code, answer)
        assert p.message("Hello", max_tokens=4)[0] == 200
    shutil.rmtree(folder)


def test_the_configuration_names_the_models_and_sighup_reads_it_again():
    """Two models of a list answer from the start; SIGHUP switches to the new list; a bad one keeps the old and says so."""
    state = tempfile.mkdtemp(prefix="parley-models-")
    second = other_version(state)
    config = os.path.join(state, "worker.toml")

    def write(*models):
        with open(config, "w") as file:
            file.write("[serve]\nkv-blocks = 64\nmodel = " + json.dumps(models) + "\n")
    write(harness.MODEL, second + ":name=second:kv-blocks=32")
    env = {k: v for k, v in os.environ.items() if k != "PARLEY_MODEL"}
    process = subprocess.Popen([os.path.join(BIN, "infer-worker"), "serve", "--config", config, "--bind", f"ipc://{state}/front.sock",
                                "--state", state], stderr=open(os.path.join(state, "err"), "w"), env=env)

    def said(word):
        with open(os.path.join(state, "err")) as file:
            return file.read().count(word)

    def models():
        done = subprocess.run([os.path.join(BIN, "infer-worker"), "models", "--state", state], capture_output=True, text=True, timeout=20)
        return {m["name"]: m["kv_blocks"] for m in json.loads(done.stdout)["models"]}
    try:
        until("not ready", lambda: said("worker.ready"))
        first = "smollm2-135m-instruct"
        assert models() == {first: 64, "second": 32}, models()
        with open(os.path.join(state, "err")) as file:
            held = [int(size) for size in re.findall(r"(?:weight|kv)_bytes=(\d+)", file.read())]
        with open(f"/proc/{process.pid}/status") as status:
            resident = int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024
        most = sum(held) / 2**20 + 64
        print(f"      resident with two models: {resident:.0f} MiB, at most {most:.0f} = weights + KV + 64")
        assert len(held) == 4 and resident <= most, (held, resident)
        run = os.stat(os.path.join(state, "run"))
        assert run.st_mode & 0o777 == 0o700, oct(run.st_mode)
        write(second + ":name=second:kv-blocks=32")
        process.send_signal(signal.SIGHUP)
        until("the list was not read again", lambda: said("worker.reloaded") == 1)
        assert models() == {"second": 32}, models()
        write(second + ":name=second:kv-blocks=32", "/no/such.gguf")
        process.send_signal(signal.SIGHUP)
        until("nothing said of a bad list", lambda: said("worker.reload_failed") == 1)
        assert models() == {"second": 32}, models()
        write(harness.MODEL, second + ":kv-blocks=many")
        process.send_signal(signal.SIGHUP)
        until("nothing said of a bad number", lambda: said("worker.reload_failed") == 2)
        assert models() == {"second": 32}, models()
        write(harness.MODEL + ":name=back")
        process.send_signal(signal.SIGHUP)
        until("the list was not read again", lambda: said("worker.reloaded") == 2)
        assert models() == {"back": 64}, models()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not os.path.exists(os.path.join(state, "run", "infer-worker-0.control"))
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(state)


def test_what_cannot_be_is_refused_in_words():
    """Bad lists end the start with 64 or 78, bad commands get one line with the reason, and the worker goes on."""
    def serve(*arguments):
        done = subprocess.run([os.path.join(BIN, "infer-worker"), "serve", "--bind", "ipc:///nowhere/x.sock", *arguments],
                              capture_output=True, text=True, timeout=20)
        return done.returncode, done.stderr
    code, said = serve("--model", harness.MODEL, "--model", "/b.gguf", "--model-name", "both")
    assert code == 64 and "--model-name with several models" in said, (code, said)
    code, said = serve("--model", harness.MODEL, "--model", harness.MODEL + ":name=again")
    assert code == 78 and "twice" in said, (code, said)
    code, said = serve("--model", harness.MODEL + ":kv-blocks=0")
    assert code == 78 and "kv-blocks is a number from 1" in said, (code, said)
    code, said = serve("--model", harness.MODEL + ":slots=x:name=a")
    assert code == 78 and "slots is a number from 1" in said, (code, said)
    code, said = serve("--model", harness.MODEL + ":foo=1")
    assert code == 78 and "'foo' is nothing that can be said of a model: name, kv-blocks and slots can" in said, (code, said)
    odd = os.path.join(tempfile.mkdtemp(prefix="parley-models-"), "m:v=2.gguf")
    with open(odd, "w") as file:
        file.write("no model")
    code, said = serve("--model", odd)
    assert "can be said" not in said and "GGUF" in said, (code, said)

    state = tempfile.mkdtemp(prefix="parley-models-")
    process = subprocess.Popen([os.path.join(BIN, "infer-worker"), "serve", "--simulate", "--bind", f"ipc://{state}/front.sock",
                                "--state", state], stderr=subprocess.DEVNULL)
    path = os.path.join(state, "run", "infer-worker-0.control")

    def say(line):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(path)
            peer.sendall(line + b"\n")
            answer = b"".join(iter(lambda: peer.recv(4096), b""))
        return json.loads(answer) if answer else None
    try:
        until("no socket", lambda: os.path.exists(path))
        assert say(b"nonsense") == {"ok": False, "error": "the command is no JSON"}
        assert say(b'{"command":"dance"}') == {"ok": False, "error": "command is load, unload or models"}
        assert say(b'{"command":"load","file":"relative.gguf"}') == {"ok": False, "error": "load: file is an absolute path"}
        assert "simulated worker loads no model" in say(json.dumps({"command": "load", "file": harness.MODEL}).encode())["error"]
        assert [m["name"] for m in say(b'{"command":"models"}')["models"]] == ["simulated"]
        with socket.socket(socket.AF_UNIX) as mute:  # says nothing: others wait 2 s, not for ever
            mute.connect(path)
            start = time.monotonic()
            assert say(b'{"command":"models"}')["ok"]
            assert time.monotonic() - start < 10
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(state)


if __name__ == "__main__":
    if not os.path.exists(harness.MODEL):
        harness.skip("no model file")
    harness.run_tests(globals())
