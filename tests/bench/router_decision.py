#!/usr/bin/env python3
"""What one decision of the router's scheduler costs with 10,000 flows that all wait and 64 workers: medians of 200,000 arrivals,
decisions and settlements, in one thread of one process.

    PARLEY_BUILD=build tests/bench/router_decision.py [--limit-us 5]

Prints one JSON object. Exit status 1 when the median decision takes longer than --limit-us.
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
parser = argparse.ArgumentParser()
parser.add_argument("--limit-us", type=float, default=5.0)
args = parser.parse_args()
binary = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin", "dispatch_test")
run = subprocess.run([binary, "[decision]"], capture_output=True, text=True, check=True)
line = next(line for line in run.stdout.splitlines() if line.startswith("{"))
print(line)
sys.exit(0 if json.loads(line)["decide_us"] <= args.limit_us else 1)
