"""The official SDKs against the running pipeline: one virtual environment a generation, made by install.sh."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from harness import Pipeline, skip

HERE = os.path.dirname(os.path.abspath(__file__))
folder = os.environ.get("PARLEY_CLIENTS") or os.path.join(HERE, "..", "..", os.environ.get("PARLEY_BUILD", "build"), "clients")
programs = {"anthropic-old": "anthropic_client.py", "anthropic-new": "anthropic_client.py", "openai": "openai_client.py"}
missing = [name for name in programs if not os.path.exists(os.path.join(folder, name, ".done"))]
if missing:
    skip(f"not installed: {', '.join(missing)} (tests/clients/install.sh)")

failed = 0
with Pipeline() as pipeline:
    env = dict(os.environ, PARLEY_URL=pipeline.info["url"], PARLEY_KEY=pipeline.key, PARLEY_MODEL=pipeline.model)
    for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        env.pop(variable, None)
    for name, program in programs.items():
        python = os.path.join(folder, name, "bin", "python")
        run = subprocess.run([python, os.path.join(HERE, program)], env=env, text=True, capture_output=True, timeout=300)
        print(name, run.stdout, run.stderr[-3000:], sep="\n")
        failed += run.returncode != 0
sys.exit(1 if failed else 0)
