#!/usr/bin/env python3
"""What chatd, safety-filter and router add to a token: loadgen's receipt of the first delta minus the worker's own stamp of
it, one request at a time, the engine otherwise idle, median of many. Twice: hold-back off, and as shipped.

    PARLEY_BUILD=build tests/bench/chain_overhead.py [--requests 200] [--limit-ms 3]

Prints one JSON object. Exit status 1 when the median without hold-back is not below --limit-ms.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from harness import ROOT, Pipeline

parser = argparse.ArgumentParser()
parser.add_argument("--requests", type=int, default=200)
parser.add_argument("--limit-ms", type=float, default=3.0)
args = parser.parse_args()

shipped = open(os.path.join(ROOT, "examples", "policy.toml")).read()
bare = re.sub(r"(?m)^tokens = \d+", "tokens = 0", re.sub(r"(?m)^watch_tokens = \d+", "watch_tokens = 0", shipped))
assert bare != shipped
result = {}
for name, text in (("hold_off", bare), ("as_shipped", shipped)):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as policy:
        policy.write(text)
        policy.flush()
        with Pipeline(PARLEY_POLICY=policy.name) as pipeline:
            binary = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin", "loadgen")
            # 16 tokens: with hold-back a first delta leaves once the words behind it are known.
            run = subprocess.run([binary, "run", "--url", pipeline.info["url"], "--model", pipeline.model, "--concurrency", "1",
                                  "--requests", str(args.requests), "--warmup-requests", "5", "--max-tokens", "16", "--temperature", "0",
                                  "--prompts", os.path.join(ROOT, "examples", "loadgen", "chat-short.jsonl"), "--chain-overhead", "--json"],
                                 env=dict(os.environ, PARLEY_API_KEY=pipeline.key), capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(run.stderr)
            report = json.loads(run.stdout.splitlines()[-1])
            assert report["requests"]["failed"] == 0, report
            result[name] = {"chain_overhead_ms": report["chain_overhead_ms"], "ttft_ms": report["ttft_ms"], "completed": report["requests"]["completed"]}
print(json.dumps(result, indent=1))
sys.exit(0 if result["hold_off"]["chain_overhead_ms"]["p50"] < args.limit_ms else 1)
