#!/usr/bin/env python3
"""An alias with a rule: what is small goes to the small model, all else to the large one, and the answer says what was configured.

usage: size_rule_test.py [test_name…]
"""
import json
import os
import subprocess
import tempfile
import time

import harness
from models_test import control, other_version

BASE = "/v1/messages/batches"


def alias(p, *arguments):
    done = subprocess.run([os.path.join(harness.BIN, "router"), "alias", *arguments], env=dict(os.environ, PARLEY_STATE=p.state), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(p, name, text="Say yes.", max_tokens=4, path="/v1/messages"):
    body = {"model": name, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    status, _, answer = p.request("POST", path, body)
    return status, answer.get("model"), answer


def said(p, name, **members):
    status, model, answer = asked(p, name, **members)
    assert status == 200, answer
    return model


def models(p):
    listed = subprocess.run([os.path.join(harness.BIN, "router"), "model", "list", "--json"], env=dict(os.environ, PARLEY_STATE=p.state),
                            capture_output=True, text=True, check=True).stdout
    return {row["name"]: row["hash"] for row in map(json.loads, listed.splitlines())}


def charged(p):
    """Hash of the model of the newest usage row."""
    listed = subprocess.run([os.path.join(harness.BIN, "convstore"), "export", "--table", "usage_log"], env=dict(os.environ, PARLEY_STATE=p.state),
                            capture_output=True, text=True, check=True).stdout
    return json.loads(listed.splitlines()[-1])["row"]["model"]


def until_said(p, name, model):
    """The rule holds within a second or two."""
    end = time.monotonic() + 10
    while asked(p, name)[1] != model:
        assert time.monotonic() < end, asked(p, name)
        time.sleep(0.1)


def test_size_decides_and_the_answer_says_what_was_configured():
    with tempfile.TemporaryDirectory() as folder, harness.Pipeline() as p:
        code, answer = control(p, "load", other_version(folder))
        assert code == 0, answer
        end = time.monotonic() + 10
        while len(hashes := models(p)) < 2:  # its row is written once it has joined
            assert time.monotonic() < end, hashes
            time.sleep(0.1)
        small = next(name for name in hashes if name != p.model)
        alias(p, "set", "auto", p.model, "--small", small, "--small-prompt", "80", "--small-answer", "8", "--say", "model")
        alias(p, "set", "quiet", p.model, "--small", small, "--small-prompt", "80", "--small-answer", "8")
        until_said(p, "auto", small)
        until_said(p, "quiet", "quiet")
        long = "word " * 120
        for path in ("/v1/messages", "/v1/chat/completions"):
            assert said(p, "auto", path=path) == small
            assert said(p, "auto", max_tokens=9, path=path) == p.model, "a long answer is large"
            assert said(p, "auto", text=long, path=path) == p.model, "a long prompt is large"
        assert said(p, "quiet") == "quiet" == said(p, "quiet", text=long)
        time.sleep(0.5)
        assert said(p, "quiet") == "quiet"
        time.sleep(0.5)
        assert charged(p) == hashes[small], "an answer that says the alias came from the small model"
        batch = p.request("POST", BASE, {"requests": [{"custom_id": name, "params": {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": text}]}}
                                                      for name, text in (("small", "Say yes."), ("large", long))]})[2]
        end = time.monotonic() + 30
        while p.request("GET", f"{BASE}/{batch['id']}")[2]["processing_status"] != "ended":
            assert time.monotonic() < end
            time.sleep(0.1)
        lines = [json.loads(line) for line in p.request("GET", f"{BASE}/{batch['id']}/results")[2].splitlines()]
        answered = {line["custom_id"]: line["result"]["message"]["model"] for line in lines}
        assert answered == {"small": small, "large": p.model}, answered
        # A rule whose small model is not there is none.
        alias(p, "set", "auto", p.model, "--small", "nobody", "--say", "model")
        until_said(p, "auto", "auto")
        rows = {row["name"]: row for row in map(json.loads, alias(p, "list", "--json").splitlines())}
        assert rows["quiet"]["rule"]["size"] == {"small": small, "prompt_tokens": 80, "max_tokens": 8, "say": "alias"}, rows


if __name__ == "__main__":
    harness.need_model()
    harness.run_tests(globals())
