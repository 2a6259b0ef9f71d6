#!/usr/bin/env python3
"""convstore from outside: admin verbs with and without a server, tail over kills of either side, damage found.

usage: convstore_tail_test.py [BIN_DIR]   (default: build/bin of this checkout)
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import harness
from harness import check, failures

BIN = sys.argv[1] if len(sys.argv) > 1 else harness.BIN
CONVSTORE = os.path.join(BIN, "convstore")


state = tempfile.mkdtemp(prefix="parley-convstore-")
env = dict(os.environ, PARLEY_STATE=state)


def run(*args, stdin=None):
    return subprocess.run([CONVSTORE, *args], env=env, input=stdin, capture_output=True, text=True, timeout=60)


def serve():
    log = open(os.path.join(state, "serve.log"), "a")
    at = log.tell()
    process = subprocess.Popen([CONVSTORE, "serve"], env=env, stderr=log)
    end = time.monotonic() + 15
    while "convstore.ready" not in open(log.name).read()[at:]:
        if time.monotonic() > end or process.poll() is not None:
            raise RuntimeError(open(log.name).read())
        time.sleep(0.01)
    return process


def tail():
    out = open(os.path.join(state, "tail.jsonl"), "a")
    return subprocess.Popen([CONVSTORE, "tail", "--follow", "--cursor", os.path.join(state, "cursor")], env=env, stdout=out,
                            stderr=subprocess.DEVNULL)


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    return process.wait(20)


try:
    # Without a server.
    missing = run("org", "list")
    check("a store that is not there is said to be so, with 69", missing.returncode == 69 and "convstore" in missing.stderr, missing)
    made = run("org", "create", "acme", "--json")
    org = json.loads(made.stdout)
    check("org create works without a server", made.returncode == 0 and org["name"] == "acme", made)
    again = run("org", "create", "acme", "--json")
    check("the same org again is refused with 65 and empty stdout", again.returncode == 65 and again.stdout == "", again)
    check("a bad flag is 64", run("tail", "--nonsense").returncode == 64)
    check("the store's folder is private", os.stat(os.path.join(state, "store")).st_mode & 0o777 == 0o700)

    server = serve()
    second = run("serve", "--lock-wait", "200ms")
    check("a second writer is refused and names the first", second.returncode == 65 and str(server.pid) in second.stderr, second)
    key = json.loads(run("key", "create", "--org", "acme", "--json").stdout)
    check("key create asks the running store", key["org"] == org["org"] and key["key"].startswith("pk_"), key)
    listed = run("key", "list", "--json").stdout
    check("a key's secret is never listed", key["key"] not in listed and key["key_id"] in listed, listed)
    data = open(os.path.join(state, "store", "data.mdb"), "rb").read()
    check("a key's secret is nowhere in the file", key["key"].encode() not in data)
    check("revoke answers", run("key", "revoke", key["key_id"]).returncode == 0)
    user = run("user", "create", "--org", "acme", "--user", "bob", "--password-stdin", "--json", stdin="hunter2\n")
    check("user create reads the password from stdin", json.loads(user.stdout)["user"] == "bob", user)

    # tail: every commit once, in order, over restarts of either side.
    follower = tail()
    made = 0
    for life in range(6):
        for _ in range(10):
            made += run("org", "create", f"org-{life}-{_}").returncode == 0
        if life % 2 == 0:
            stop(server, signal.SIGKILL)
            server = serve()
        else:
            check("tail ends with 0 on SIGTERM", stop(follower) == 0)
            made += run("org", "create", f"between-{life}").returncode == 0
            follower = tail()
    last = json.loads(run("tail").stdout.splitlines()[-1])["seq"]
    end = time.monotonic() + 15
    lines = []
    while time.monotonic() < end:
        lines = [json.loads(line) for line in open(os.path.join(state, "tail.jsonl"))]
        if lines and lines[-1]["seq"] == last:
            break
        time.sleep(0.05)
    check("all 63 orgs were made", made == 63, made)
    check("tail printed every commit once, in order", [line["seq"] for line in lines] == list(range(1, last + 1)), len(lines))
    # A change reaches the follower by publication, not only by its poll each second.
    delays = []
    for n in range(8):
        size = os.path.getsize(os.path.join(state, "tail.jsonl"))
        run("org", "create", f"soon-{n}")
        start = time.monotonic()
        while os.path.getsize(os.path.join(state, "tail.jsonl")) == size and time.monotonic() - start < 3:
            time.sleep(0.002)
        delays.append(time.monotonic() - start)
    check("a commit is printed within 100 ms (median of 8)", sorted(delays)[4] < 0.1, delays)
    # Killed while it prints: what it had written before it could save its position is not written again.
    stop(follower)
    for burst in range(12):
        follower = tail()
        makers = [subprocess.Popen([CONVSTORE, "org", "create", f"burst-{burst}-{n}"], env=env, stdout=subprocess.DEVNULL)
                  for n in range(4)]
        time.sleep(0.004 * burst)
        follower.kill()
        follower.wait()
        for maker in makers:
            maker.wait()
    # And certainly so: the lines are there, the cursor stands before them.
    with open(os.path.join(state, "cursor")) as file:
        before = file.read()
    cursor_of = lambda: int(open(os.path.join(state, "cursor")).read().split()[0])
    follower = tail()
    end = time.monotonic() + 10
    while cursor_of() < json.loads(run("tail").stdout.splitlines()[-1])["seq"] and time.monotonic() < end:
        time.sleep(0.01)
    follower.kill()
    follower.wait()
    with open(os.path.join(state, "cursor"), "w") as file:
        file.write(before)
    follower = tail()
    run("org", "create", "last")
    last = json.loads(run("tail").stdout.splitlines()[-1])["seq"]
    while cursor_of() < last and time.monotonic() < end:
        time.sleep(0.01)
    lines = [json.loads(line)["seq"] for line in open(os.path.join(state, "tail.jsonl"))]
    check("a file holds every commit once though tail was killed in mid-print", lines == list(range(1, last + 1)), (len(lines), last))
    check("--since begins after that number", json.loads(run("tail", "--since", "5").stdout.splitlines()[0])["seq"] == 6)
    stop(follower)

    # The log in parts, and a cursor that is handed on.
    whole = run("tail").stdout.splitlines()
    parts = [run("tail", "--partition", f"{k}/3").stdout.splitlines() for k in range(3)]
    check("the parts of the log are the log", sorted(sum(parts, [])) == sorted(whole), [len(p) for p in parts])
    check("one may count the parts from 1", run("tail", "--partition", "3/3").stdout.splitlines() == parts[0])
    check("a bad partition is 64", run("tail", "--partition", "4/3").returncode == 64)
    out, cursor = os.path.join(state, "parted.jsonl"), os.path.join(state, "parted")
    follow = lambda: subprocess.Popen([CONVSTORE, "tail", "--follow", "--cursor", cursor, "--partition", "0/1", "--lease", "2s"],
                                      env=env, stdout=open(out, "a"), stderr=subprocess.PIPE)
    lines_in = lambda: len(open(out).readlines())

    def reaches(count, limit):
        end = time.monotonic() + limit
        while lines_in() < count and time.monotonic() < end:
            time.sleep(0.01)
        return lines_in() >= count

    first = follow()
    check("the first follower prints", reaches(len(whole), 10), lines_in())
    second = follow()
    time.sleep(0.3)
    check("a second one on the same cursor prints nothing", lines_in() == len(whole), lines_in())
    refused = run("tail", "--cursor", cursor)
    check("one that does not follow is refused with 65", refused.returncode == 65 and refused.stdout == "", refused)
    first.kill()
    first.wait()
    run("org", "create", "handed-on")
    check("when the first dies the second goes on at once", reaches(len(whole) + 1, 1.5), lines_in())
    last = json.loads(run("tail").stdout.splitlines()[-1])["seq"]
    end = time.monotonic() + 10
    while int(open(cursor).read().split()[0]) < last and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)  # it is between two pieces of work now: see lease.hpp, Limit
    second.send_signal(signal.SIGSTOP)
    third = follow()
    run("org", "create", "handed-on-again")
    check("when the second stands still the third goes on after the lease", reaches(len(whole) + 2, 6), lines_in())
    second.send_signal(signal.SIGCONT)
    said = second.communicate(timeout=10)[1].decode()
    check("the second, woken, ends with 65 and says who has it", second.returncode == 65 and str(third.pid) in said, said)
    run("org", "create", "handed-on-last")
    check("and prints nothing more", reaches(len(whole) + 3, 5) and lines_in() == len(whole) + 3, lines_in())
    stop(third)

    # get, export, check, backup.
    got = run("get", "org", org["org"])
    check("get prints the row", json.loads(got.stdout)["name"] == "acme", got)
    check("get of no row is 66", run("get", "org", "org_00000000000000000000000000").returncode == 66)
    rows = [json.loads(line) for line in run("export", "--table", "changes").stdout.splitlines()]
    check("export prints every row", [r["row"]["seq"] for r in rows] == list(range(1, len(rows) + 1)))
    sound = run("check", "--json")
    check("a sound store passes the check beside its writer", sound.returncode == 0 and json.loads(sound.stdout)["findings"] == 0, sound)
    copy = os.path.join(state, "copy")
    check("backup verifies its copy", json.loads(run("backup", copy, "--json").stdout)["verified"] is True)
    check("a backup goes into an empty folder only", run("backup", copy).returncode == 64)
    without = run("check", "--store", copy, "--json")
    check("the backup reads back, what is sealed by its checksum", without.returncode == 0 and json.loads(without.stdout)["unread"] > 0, without)
    within = run("check", "--store", copy, "--keys", os.path.join(state, "store", "keys"), "--json")
    check("and whole with the keys", within.returncode == 0 and json.loads(within.stdout)["unread"] == 0, within)
    data = bytearray(open(os.path.join(copy, "data.mdb"), "rb").read())
    at = data.find(b'"type":"org.created"')
    data[at + 3] ^= 1
    open(os.path.join(copy, "data.mdb"), "wb").write(data)
    damaged = run("check", "--store", copy)
    check("a flipped bit is found and named, with 65", damaged.returncode == 65 and "table 'changes' key 00" in damaged.stdout, damaged)

    # Drain.
    start = time.monotonic()
    check("serve drains and ends with 0", stop(server) == 0)
    check("draining an idle store takes under a second", time.monotonic() - start < 1)
    check("admin verbs go on without it", run("org", "create", "after").returncode == 0)
finally:
    for process in [p for p in (globals().get("server"), globals().get("follower")) if p and p.poll() is None]:
        process.kill()
        process.wait()
    shutil.rmtree(state, ignore_errors=True)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
