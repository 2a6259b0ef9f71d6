#!/usr/bin/env python3
"""Message batches, by the real processes and the simulated worker: run, restart in the middle, cancel, delete, expire.

usage: batches_test.py [test_name…]
"""
import json
import os
import subprocess
import time

from harness import BIN, Pipeline, run_tests

BASE = "/v1/messages/batches"


def entry(pipeline, name, **params):
    return {"custom_id": name, "params": pipeline.body("Say something about " + name, **{"max_tokens": 8, **params})}


def make(pipeline, entries):
    status, _, batch = pipeline.request("POST", BASE, {"requests": entries}, timeout=120)
    assert status == 200, (status, batch)
    return batch


def get(pipeline, path):
    return pipeline.request("GET", BASE + path)


def wait_ended(pipeline, ident, limit=60):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            status, _, batch = get(pipeline, "/" + ident)
            if status == 200 and batch["processing_status"] == "ended":
                return batch
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{ident} has not ended in {limit} s: {batch}" + pipeline.logs())


def results(pipeline, ident):
    status, headers, raw = get(pipeline, f"/{ident}/results")
    assert status == 200 and headers["content-type"] == "application/x-jsonl", (status, headers, raw)
    assert raw.endswith(b"\n"), raw[-200:]
    lines = [json.loads(line) for line in raw.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines), "an entry has two results"
    return {line["custom_id"]: line["result"] for line in lines}


def memory(pipeline, name):
    with open(f"/proc/{pipeline.pid(name)}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["RssAnon"].split()[0]) / 1024


def test_a_batch_gives_every_entry_its_result():
    """Right and wrong entries, in one batch."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        batch = make(pipeline, [entry(pipeline, "good"), entry(pipeline, "stream", stream=True), entry(pipeline, "typed", max_tokens="8"),
                                entry(pipeline, "unknown", model="nobody"), {"custom_id": "empty", "params": {}}])
        assert batch["id"].startswith("msgbatch_") and batch["type"] == "message_batch" and batch["results_url"] is None, batch
        assert batch["request_counts"] == {"processing": 5, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}, batch
        ended = wait_ended(pipeline, batch["id"])
        assert ended["request_counts"] == {"processing": 0, "succeeded": 1, "errored": 4, "canceled": 0, "expired": 0}, ended
        assert ended["results_url"] == f"{pipeline.info['url']}{BASE}/{batch['id']}/results", ended
        got = results(pipeline, batch["id"])
        message = got["good"]["message"]
        assert got["good"]["type"] == "succeeded" and message["type"] == "message" and message["usage"]["service_tier"] == "batch", got
        texts = {name: got[name]["error"]["error"] for name in ("stream", "typed", "unknown", "empty")}
        assert all(got[name]["error"]["type"] == "error" and got[name]["error"]["request_id"] is None for name in texts), got
        assert texts["typed"]["message"].startswith("max_tokens:") and texts["stream"]["message"].startswith("stream:"), texts
        assert texts["unknown"]["type"] == "not_found_error" and texts["empty"]["message"] == "model: Field required", texts
        listed = get(pipeline, "?limit=1")[2]
        assert [b["id"] for b in listed["data"]] == [batch["id"]] and listed["has_more"] is False and listed["last_id"] == batch["id"], listed
        status, _, gone = pipeline.request("DELETE", f"{BASE}/{batch['id']}")
        assert status == 200 and gone == {"id": batch["id"], "type": "message_batch_deleted"}, gone
        assert get(pipeline, "/" + batch["id"])[0] == 404 and get(pipeline, f"/{batch['id']}/results")[0] == 404


def test_entries_keep_the_limits_of_their_key():
    """A rate stretches the batch; what never fits, and what would pass the spend, is errored."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1000") as pipeline:
        def with_limits(limits, entries):
            made = json.loads(pipeline.convstore("key", "create", "--org", "pipeline", "--json", "--limits", json.dumps(limits)))
            own, pipeline.key = pipeline.key, made["key"]
            try:
                begun = time.monotonic()
                batch = make(pipeline, entries)
                wait_ended(pipeline, batch["id"])
                return results(pipeline, batch["id"]), time.monotonic() - begun
            finally:
                pipeline.key = own

        got, took = with_limits({"requests": 60, "requests_burst": 2, "concurrent": 1}, [entry(pipeline, f"e{i}") for i in range(5)])
        assert all(one["type"] == "succeeded" for one in got.values()), got
        assert took >= 3, f"five entries at one a second after a burst of two took {took:.2f} s"
        got, _ = with_limits({"output_tokens": 100}, [entry(pipeline, "fits"), entry(pipeline, "never", max_tokens=101)])
        assert got["fits"]["type"] == "succeeded", got
        error = got["never"]["error"]["error"]
        assert error["type"] == "rate_limit_error" and "100 output tokens per minute" in error["message"] and "Reduce" in error["message"], error
        # 1 millionth a prompt token, 5 an answer token.
        got, _ = with_limits({"spend": 0.001, "spend_period": "day"}, [entry(pipeline, "dear", max_tokens=1000), entry(pipeline, "cheap")])
        error = got["dear"]["error"]["error"]
        assert error["type"] == "billing_error" and "spend limit of 0.001 per day" in error["message"], error
        assert got["cheap"]["type"] == "succeeded", got


def test_a_batch_outlives_its_chatd():
    """kill -9 in the middle: every entry has one result, and its usage is charged once."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        count = 300
        batch = make(pipeline, [entry(pipeline, f"e{i}", max_tokens=20) for i in range(count)])
        time.sleep(0.3)
        old = pipeline.kill("chatd")
        pipeline.wait_restarted("chatd", old)
        pipeline.wait_ready()
        ended = wait_ended(pipeline, batch["id"], 120)
        assert ended["request_counts"]["succeeded"] == count, ended
        got = results(pipeline, batch["id"])
        assert len(got) == count and all(r["type"] == "succeeded" for r in got.values())
        said = sum(r["message"]["usage"]["output_tokens"] for r in got.values())
        charged = usage(pipeline)
        assert charged == said, (charged, said)


def usage(pipeline):
    env = {**os.environ, "PARLEY_STATE": pipeline.state}
    done = subprocess.run([os.path.join(BIN, "convstore"), "export", "--table", "usage_log"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    total = 0
    for line in done.stdout.splitlines():
        row = json.loads(line)["row"]
        if row.get("class") == "batch":
            total += row["output_tokens"]
    return total


def test_cancel_leaves_what_is_done_and_takes_the_rest():
    """Cancelled in the middle: finished results stay, the others are canceled; the sum is the batch."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        batch = make(pipeline, [entry(pipeline, f"e{i}", max_tokens=200) for i in range(400)])
        path = f"{BASE}/{batch['id']}"
        assert pipeline.request("DELETE", path)[0] == 400
        assert get(pipeline, f"/{batch['id']}/results")[0] == 404
        status, _, canceling = pipeline.request("POST", path + "/cancel")
        assert status == 200 and canceling["processing_status"] in ("canceling", "ended") and canceling["cancel_initiated_at"], canceling
        ended = wait_ended(pipeline, batch["id"], 20)
        counts = ended["request_counts"]
        assert counts["canceled"] > 300 and counts["canceled"] + counts["succeeded"] == 400, counts
        kinds = [r["type"] for r in results(pipeline, batch["id"]).values()]
        assert kinds.count("canceled") == counts["canceled"] and len(kinds) == 400
        status, _, again = pipeline.request("POST", path + "/cancel")
        assert status == 200 and again["processing_status"] == "ended", again


def test_what_has_not_run_in_time_expires():
    """Of more than can run in a second some entries have an answer, the others are expired."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1", CHATD_BATCH_EXPIRY="1s", CHATD_BATCH_CONCURRENCY=2) as pipeline:
        batch = make(pipeline, [entry(pipeline, f"e{i}", max_tokens=200) for i in range(400)])
        counts = wait_ended(pipeline, batch["id"], 20)["request_counts"]
        assert counts["expired"] > 300 and counts["expired"] + counts["succeeded"] == 400, counts
        assert [r["type"] for r in results(pipeline, batch["id"]).values()].count("expired") == counts["expired"]


def test_what_is_no_batch_is_refused_and_leaves_nothing():
    """Refusals of create, and of ids that are none."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        good = entry(pipeline, "a")
        for body, text in (("", "not valid JSON"), ("{", "not valid JSON"), ({"requests": []}, "requests: "), ({}, "requests: Field required"),
                           ({"requests": [good, good]}, "requests.1.custom_id: "), ({"requests": [{**good, "custom_id": "a b"}]}, "requests.0.custom_id: "),
                           ({"requests": [good] + [{"custom_id": "b"}]}, "requests.1.params: ")):
            status, _, answer = pipeline.request("POST", BASE, body)
            assert status == 400 and text in answer["error"]["message"], (body, status, answer)
        status, _, answer = pipeline.request("POST", BASE, {"requests": [good]}, headers={"x-api-key": pipeline.key})
        assert status == 400 and answer["error"]["message"] == "anthropic-version: header is required", answer
        assert pipeline.request("POST", BASE, {"requests": [good]}, headers={"anthropic-version": "2023-06-01"})[0] == 401
        assert get(pipeline, "")[2] == {"data": [], "has_more": False, "first_id": None, "last_id": None}
        assert get(pipeline, "/msgbatch_1")[0] == 404 and get(pipeline, "/x/results")[0] == 404
        assert pipeline.request("POST", f"{BASE}/x/cancel")[0] == 404 and pipeline.request("DELETE", f"{BASE}/x")[0] == 404
        assert pipeline.request("GET", BASE + "?limit=0")[0] == 400 and pipeline.request("GET", BASE + "?after_id=x")[0] == 400


def test_a_hundred_thousand_entries_are_not_held_in_memory():
    """Created, cancelled and read: chatd's own memory grows by less than 64 MiB, the body has over 90 MB."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        before = memory(pipeline, "chatd")
        filler = "word " * 160
        body = json.dumps({"requests": [{"custom_id": f"e{i}", "params": pipeline.body(filler, max_tokens=4)} for i in range(100_000)]})
        assert len(body) > 90_000_000, len(body)
        start = time.monotonic()
        status, _, batch = pipeline.request("POST", BASE, body, timeout=300)
        assert status == 200 and batch["request_counts"]["processing"] == 100_000, (status, batch)
        print(f"created 100,000 entries, {len(body) / 1e6:.0f} MB, in {time.monotonic() - start:.1f} s")
        peak = memory(pipeline, "chatd")
        assert pipeline.request("POST", f"{BASE}/{batch['id']}/cancel")[0] == 200
        ended = wait_ended(pipeline, batch["id"], 180)
        assert sum(ended["request_counts"].values()) == 100_000, ended
        assert len(results(pipeline, batch["id"])) == 100_000
        peak = max(peak, memory(pipeline, "chatd"))
        print(f"private memory of chatd: {before:.0f} MiB before, {peak:.0f} MiB after")
        assert peak - before < 64, (before, peak)


if __name__ == "__main__":
    run_tests(globals())
