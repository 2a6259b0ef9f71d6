#!/usr/bin/env python3
"""What the store does in a second, in one run with raw LMDB and SQLite (WAL, synchronous=FULL) that write the same rows.

Sends go through convstore's real sockets, each with a message of 1 KiB; 1, 8 and 64 senders at a time. Raw LMDB writes the
rows that those sends left (13 each, keys and values as they stand in the store) in transactions of as many sends as there are
senders; SQLite writes a quarter of them with a connection a sender. The sides take turns, the figures are medians of the
rounds. Pages are read as chatd reads them, from a store filled by imports: 50 messages, or 20 conversations.

    PARLEY_BUILD=build tests/bench/store_figures.py [--short] [--json] [--messages 10000000] [--folder build]

--folder is on the disk to be measured; a store of ten million messages takes 7 GB there and minutes to fill. Exit status 1
when something misses its mark.
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"))
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--messages", type=int, default=10_000_000, help="that the history has")
parser.add_argument("--conversations", type=int, help="beside one of 50,000 messages (100,000, or a hundredth of the messages)")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--short", action="store_true", help="200,000 messages, 3 rounds of half the sends")
parser.add_argument("--folder", default=BUILD)
parser.add_argument("--json", action="store_true")
args = parser.parse_args()
if args.short:
    args.messages, args.rounds = min(args.messages, 200_000), min(args.rounds, 3)
conversations = args.conversations or max(1, min(100_000, args.messages // 100))
binary = os.path.join(BUILD, "bin", "store_figures")
if not os.path.isfile(binary):
    sys.exit(f"no {binary}: ninja -C {BUILD} store_figures")
run = subprocess.run([binary, "--dir", args.folder, "--messages", str(args.messages), "--conversations", str(conversations),
                      "--rounds", str(args.rounds), "--scale", "0.5" if args.short else "1"], stdout=subprocess.PIPE, text=True)
if run.returncode:
    sys.exit(run.returncode)
figures = json.loads(run.stdout)

marks = []  # (what, seen, mark, met)
commit = figures["sends"][0]["lmdb_commit_p50_ms"]
for row in figures["sends"]:
    n = row["senders"]
    share = row["store_s"] / row["lmdb_s"]
    marks.append((f"{n} senders: {row['store_s']:,.0f} sends/s beside raw LMDB's {row['lmdb_s']:,.0f}", f"{share:.2f}", ">= 0.8", share >= 0.8))
    if n == 64:
        most = max(5.0, 3 * commit)
        marks.append((f"{n} senders: acknowledged, p99", f"{row['ack_p99_ms']:.2f} ms", f"<= {most:.1f} ms", row["ack_p99_ms"] <= most))
        if "sqlite_s" in row:
            times = row["store_s"] / row["sqlite_s"]
            marks.append((f"{n} connections: beside SQLite's {row['sqlite_s']:,.0f}/s", f"{times:.1f}", ">= 3", times >= 3))
        else:
            marks.append(("beside SQLite", "not measured: build with libsqlite3-dev", ">= 3", False))
reads = figures["reads"]
for name, what in (("history", f"a page of history, {reads['messages']:,} messages, p99"), ("long", "a page anywhere in a conversation of 50,000, p99"),
                   ("list", f"a page of the list, {reads['conversations']:,} conversations, p99")):
    seen = reads[name + "_p99_ms"]
    marks.append((what, f"{seen:.2f} ms", "< 1 ms", seen < 1))

if args.json:
    print(json.dumps({**figures, "marks": [{"what": w, "seen": s, "mark": m, "met": ok} for w, s, m, ok in marks]}))
else:
    print("senders  store/s   LMDB/s  SQLite/s  commands a commit  acknowledged p50/p99 ms  LMDB commit p50/p99 ms")
    for row in figures["sends"]:
        print(f"{row['senders']:7} {row['store_s']:8,.0f} {row['lmdb_s']:8,.0f} {row.get('sqlite_s', float('nan')):9,.0f} {row['group']:18.1f} "
              f"{row['ack_p50_ms']:15.2f} / {row['ack_p99_ms']:.2f} {row['lmdb_commit_p50_ms']:14.2f} / {row['lmdb_commit_p99_ms']:.2f}")
    print(f"filled in {reads['fill_s']:.0f} s, {reads['bytes'] / 1e9:.2f} GB\n")
    for what, seen, mark, met in marks:
        print(f"{'met   ' if met else 'MISSED'} {what}: {seen} ({mark})")
sys.exit(0 if all(met for *_, met in marks) else 1)
