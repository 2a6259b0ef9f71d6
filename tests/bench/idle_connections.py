#!/usr/bin/env python3
"""What connections that wait cost: chatd's private memory before and after so many clients have come, asked once, and stay.

    PARLEY_BUILD=build tests/bench/idle_connections.py [--connections 10000] [--limit-mib 300]

Prints one JSON object. Exit status 1 when the memory is above the limit, or one of them is not served at the end;
69 where the limit of open files is too low.
"""
import argparse
import json
import os
import resource
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipeline"))
from harness import Pipeline


def private_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--limit-mib", type=float, default=300)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < args.connections + 100:
        print(f"SKIPPED: at most {hard} open files here", file=sys.stderr)
        return 69
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ["CHATD_CONNECTIONS_MAX"] = os.environ["CHATD_CONNECTIONS_PER_ADDRESS"] = str(args.connections + 50)
    os.environ["CHATD_IDLE_TIMEOUT"] = "10m"
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1000", PARLEY_MODEL="/none") as pipeline:
        pid = pipeline.pid("chatd")
        before = private_mib(pid)
        ask = (f"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: {pipeline.key}\r\nanthropic-version: 2023-06-01\r\n\r\n").encode()
        sockets, served, start = [], 0, time.monotonic()
        for _ in range(args.connections):
            s = socket.create_connection((pipeline.host, pipeline.port), timeout=30)
            s.sendall(ask)
            served += s.recv(65536).startswith(b"HTTP/1.1 200")
            sockets.append(s)
        took = time.monotonic() - start
        after = private_mib(pid)
        status = pipeline.message("Hello")[0]
        again = 0
        for s in sockets:
            s.sendall(ask)
            again += s.recv(65536).startswith(b"HTTP/1.1 200")
        result = {"connections": args.connections, "served": served, "served_again": again, "message_status": status,
                  "private_mib_before": round(before, 1), "private_mib_after": round(after, 1),
                  "kib_each": round((after - before) * 1024 / args.connections, 2), "connect_s": round(took, 2)}
        for s in sockets:
            s.close()
    print(json.dumps(result))
    good = served == again == args.connections and status == 200 and after <= args.limit_mib
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
