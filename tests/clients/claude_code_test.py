"""Claude Code, the program inside PyPI's claude-agent-sdk, against the running pipeline: nothing but address, key and model change.

The model is Gemma 3 270M with its window of 32,768 tokens. It is a base model, which does not end a turn by itself: the
program's own CLAUDE_CODE_EXTRA_BODY adds a stop sequence and temperature 0, so that a run is short and repeatable.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from harness import BIN, Pipeline, check, failures, skip

HERE = os.path.dirname(os.path.abspath(__file__))
folder = os.environ.get("PARLEY_CLIENTS") or os.path.join(HERE, "..", "..", os.environ.get("PARLEY_BUILD", "build"), "clients")
programs = glob.glob(os.path.join(folder, "claude-code", "lib", "python3*", "site-packages", "claude_agent_sdk", "_bundled", "claude"))
if not programs or not os.path.exists(os.path.join(folder, "claude-code", ".done")):
    skip("not installed: claude-code (tests/clients/install.sh)")
model = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "parley/models/gemma3-270m-q4_k_m.gguf")
if not os.path.isfile(model):
    skip("no model of 16,384 tokens or more: " + model)


def run(pipeline, home, *arguments, model="claude-local", **more):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "CLAUDE"))}
    env.update(HOME=home, CLAUDE_CONFIG_DIR=home, ANTHROPIC_BASE_URL=pipeline.info["url"], CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
               CLAUDE_CODE_MAX_OUTPUT_TOKENS="400", CLAUDE_CODE_EXTRA_BODY='{"temperature":0,"stop_sequences":["."]}', API_TIMEOUT_MS="240000", **more)
    done = subprocess.run([programs[0], "-p", "Say hello in one word.", "--model", model, "--output-format", "json", "--max-turns", "1", *arguments],
                          env=env, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    return done.returncode, answer, (done.returncode, done.stdout[-800:], done.stderr[-400:])


def prompt_tokens(answer):
    usage = answer.get("usage") or {}
    return sum(usage.get(name, 0) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"))


def requests_of(pipeline):
    with open(os.path.join(pipeline.state, "log", "chatd.log"), encoding="utf-8") as log:
        return [line for line in log if "event=chatd.request " in line and " route=ready " not in line]


with Pipeline(PARLEY_MODEL=model, INFER_WORKER_CHAT_TEMPLATE="gemma") as pipeline, tempfile.TemporaryDirectory() as home:
    # It shows and asks for names of its own: an alias is one of them.
    subprocess.run([os.path.join(BIN, "router"), "alias", "set", "claude-local", pipeline.model], check=True, env=dict(os.environ, PARLEY_STATE=pipeline.state),
                   stdout=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while pipeline.request("GET", "/v1/models/claude-local")[0] != 200 and time.monotonic() < until:
        time.sleep(0.1)  # chatd looks each second
    code, answer, seen = run(pipeline, home, "--tools", "", "--system-prompt", "You are brief.", ANTHROPIC_API_KEY=pipeline.key)
    check("a short prompt without tools, by x-api-key: exit 0 and a result", code == 0 and answer.get("is_error") is False and bool(answer.get("result")), seen)
    check("it is one turn", answer.get("num_turns") == 1, seen)

    code, answer, seen = run(pipeline, home, ANTHROPIC_AUTH_TOKEN=pipeline.key)
    check("its whole prompt with all its tools, by Bearer: exit 0 and a result", code == 0 and answer.get("is_error") is False and bool(answer.get("result")), seen)
    check("the whole of that prompt was read", prompt_tokens(answer) > 8192, answer.get("usage"))
    before = len(requests_of(pipeline))
    code, again, seen = run(pipeline, home, ANTHROPIC_AUTH_TOKEN=pipeline.key)
    check("a second run finds most of its prompt in the cache", code == 0 and (again.get("usage") or {}).get("cache_read_input_tokens", 0) > 4096, again.get("usage"))
    bad = [line for line in requests_of(pipeline) if "route=messages " in line and (" status=4" in line or " status=5" in line)]
    check("nothing that it asks is refused", not bad and before > 1, bad)

    code, answer, seen = run(pipeline, home, "--tools", "", "--system-prompt", "You are brief.", model="no-such-model", ANTHROPIC_API_KEY=pipeline.key)
    check("a model that is not there is told in words", code != 0 and "no-such-model" in json.dumps(answer), seen)
    print("asked:", sorted({line.split(" method=")[1].split(" status=")[0] for line in requests_of(pipeline)}))
sys.exit(1 if failures else 0)
