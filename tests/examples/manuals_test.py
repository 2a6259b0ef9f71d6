"""The EXAMPLES of the manuals that need nothing but a model and stdin are run as they stand; each must give an answer."""

import glob
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "docs"))
import docs
from docs import check

MODEL = os.environ.get("PARLEY_MODEL") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "parley", "models", "SmolLM2-135M-Instruct.Q4_1.gguf")
# Verbs that read, answer and end; the others need a running pipeline and are checked by docs_manuals.
FILTERS = {("safety-filter", "run"), ("safety-filter", "check"), ("infer-worker", "run"), ("infer-worker", "info"),
           ("infer-worker", "tokenize")}

if not os.path.exists(MODEL):
    docs.skip(f"no model at {MODEL}")
docs.need_tools()


def runnable(shell):
    found = False
    for words in docs.commands(shell):
        ours = docs.tool_command(words)
        if ours and (ours[0], ours[1][:1][0] if ours[1] else "") in FILTERS:
            found = True
        elif words[0] not in ("echo", "jq", "printf"):
            return False
    return found


ran = 0
with tempfile.TemporaryDirectory() as folder:
    for name in ("m.gguf", "smol.gguf"):
        os.symlink(MODEL, os.path.join(folder, name))
    with open(os.path.join(folder, "requests.jsonl"), "w") as file:
        for question in ("What is bread made of?", "Name three colours."):
            file.write(json.dumps({"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": question}]}) + "\n")
    env = {**docs.environment(), "PATH": docs.BIN + ":" + os.environ["PATH"], "PARLEY_STATE": os.path.join(folder, "state")}
    for page in sorted(glob.glob(os.path.join(docs.ROOT, "man", "*.[18]")) + [os.path.join(docs.ROOT, "man", "parley.7")]):
        for shell in docs.examples_of(page):
            for typed in docs.apart(shell):
                if not runnable(typed):
                    continue
                ran += 1
                done = subprocess.run(["bash", "-o", "pipefail", "-c", typed], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
                check(done.returncode == 0 and done.stdout.strip(), f"{os.path.basename(page)}: {done.returncode} {done.stderr}\n{typed}")
check(ran >= 5, f"examples were run: {ran}")
docs.finish()
