#!/usr/bin/env python3
"""Requests a second through the router on one core: a router process bound to one core (its I/O thread too), simulated workers that
answer at once and an asker on the others, 1,000 organizations, 2,048 requests in flight. `per_core_s` is what one core's time
gives (requests over the router's CPU seconds), `per_s` what this run got by the clock.

    PARLEY_BUILD=build tests/bench/router_rate.py [--least 20000]

Prints one JSON object. Exit status 1 when per_core_s is below --least.
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
parser = argparse.ArgumentParser()
parser.add_argument("--least", type=float, default=20_000)
args = parser.parse_args()
binary = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin", "dispatch_test")
run = subprocess.run([binary, "[rate]"], capture_output=True, text=True, check=True)
line = next(line for line in run.stdout.splitlines() if line.startswith("{"))
print(line)
sys.exit(0 if json.loads(line)["per_core_s"] >= args.least else 1)
