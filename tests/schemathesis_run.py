#!/usr/bin/env python3
"""schemathesis makes requests from /openapi.json, right and wrong ones, and no answer is a 5xx or a broken stream. The worker is simulated.

usage: schemathesis_run.py SCHEMATHESIS [EXAMPLES]
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "pipeline"))
from harness import Pipeline

with Pipeline(PARLEY_SIMULATE="--simulate-speed=20") as pipeline:
    # The live feed has no end; a stream's head and end are the business of tests/pipeline.
    run = subprocess.run([sys.argv[1], "run", pipeline.info["url"] + "/openapi.json", "-H", "x-api-key: " + pipeline.key,
                          "--checks", "not_a_server_error", "--max-examples", sys.argv[2] if len(sys.argv) > 2 else "50",
                          "--exclude-path", "/v1/events", "--request-timeout", "30", "--workers", "1", "--continue-on-failure"])
    if run.returncode:
        print(pipeline.logs())
sys.exit(run.returncode)
