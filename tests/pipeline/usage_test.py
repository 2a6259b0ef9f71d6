"""GET /v1/usage and the usage of an answer say the same; other people's is out of reach."""

import datetime
import json
import time

from harness import Pipeline, need_model, run_tests

need_model()
pipeline = Pipeline()
TODAY = datetime.datetime.now(datetime.timezone.utc).date()


convstore = pipeline.convstore


def usage(query="", key=None, user=None, status=200):
    headers = {"x-api-key": key or pipeline.key, **({"x-user-id": user} if user else {})}
    got, _, body = pipeline.request("GET", "/v1/usage" + query, headers=headers)
    assert got == status, (got, body)
    return body


def ask(user=None):
    headers = {**pipeline.headers(), **({"x-user-id": user} if user else {})}
    status, _, body = pipeline.request("POST", "/v1/messages", pipeline.body("Name a color.", max_tokens=8), headers)
    assert status == 200, body
    return body["usage"]


def settled(requests, user=None):
    """The row is written after the answer's end."""
    until = time.monotonic() + 10
    while (got := usage(user=user))["total"]["requests"] < requests and time.monotonic() < until:
        time.sleep(0.05)
    assert got["total"]["requests"] == requests, got
    return got


def test_the_sums_are_those_of_the_answers():
    before = usage()["total"]
    said = [ask() for _ in range(3)]
    got = settled(before["requests"] + 3)
    assert got["type"] == "usage" and got["of"] == "org" and got["to"] == str(TODAY), got
    assert got["from"] == str(TODAY - datetime.timedelta(days=29)), got
    assert got["total"]["input_tokens"] - before["input_tokens"] == sum(u["input_tokens"] for u in said), (got, said)
    assert got["total"]["output_tokens"] - before["output_tokens"] == sum(u["output_tokens"] for u in said), (got, said)
    assert got["total"]["compute_seconds"] > before["compute_seconds"]
    (row,) = [r for r in got["data"] if r["date"] == str(TODAY)]
    assert row["model"] == pipeline.model, row
    # The default prices: 1 and 5 for a million tokens.
    cost = (row["input_tokens"] * 1 + row["output_tokens"] * 5) / 1e6
    assert abs(row["cost"] - cost) < 1e-5, (row, cost)
    for name in ("requests", "input_tokens", "output_tokens"):
        assert sum(r[name] for r in got["data"]) == got["total"][name]


def test_a_user_sees_only_their_own_and_another_org_nothing():
    for _ in range(2):
        ask(user="ann")
    ask(user="bob")
    assert settled(2, user="ann")["of"] == "user"
    settled(1, user="bob")
    convstore("org", "create", "elsewhere")
    other = json.loads(convstore("key", "create", "--org", "elsewhere", "--json"))["key"]
    assert usage(key=other)["data"] == []
    assert usage("?of=org", user="ann")["total"]["requests"] >= 3  # a key sees its org's if it asks for it


def test_days_are_checked():
    assert usage(f"?from={TODAY}&to={TODAY}")["from"] == str(TODAY)
    assert usage("?from=2020-01-01&to=2020-12-31")["data"] == []
    for query, word in (("?from=yesterday", "from"), ("?to=2026-02-30", "to"), ("?from=2026-13-01", "from"), ("?to=2026-1-01", "to"),
                        ("?from=2026-02-02&to=2026-02-01", "from"), ("?from=2020-01-01&to=2021-02-01", "366 days"), ("?of=planet", "of"), ("?from=-026-01-01", "from")):
        error = usage(query, status=400)["error"]
        assert error["type"] == "invalid_request_error" and word in error["message"], (query, error)
    assert pipeline.request("GET", "/v1/usage", headers={})[0] == 401


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
