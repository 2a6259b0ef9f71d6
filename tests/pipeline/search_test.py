#!/usr/bin/env python3
"""Search over the whole pipeline: what was just sent is found, only one's own, over a killed and a missing indexer, a damaged index."""
import glob
import json
import os
import re
import subprocess
import sys
from urllib.parse import urlencode

from harness import BIN, Pipeline, check, failures, until

CONVSTORE = os.path.join(BIN, "convstore")


def search(pipeline, query, user="ann", **more):

    return pipeline.request("GET", "/v1/search?" + urlencode({"q": query, **more}), headers=pipeline.headers({"x-user-id": user}))


def found(pipeline, query, user="ann"):
    status, _, body = search(pipeline, query, user)
    assert status == 200, (status, body)
    return body["data"]


def say(pipeline, conversation, text, user="ann"):
    status, _, body = pipeline.request("POST", f"/v1/conversations/{conversation}/messages", {"content": text, "stream": False, "max_tokens": 8},
                                       headers=pipeline.headers({"x-user-id": user}))
    assert status == 200, (status, body)
    return body


def conversation(pipeline, title, user="ann"):
    return pipeline.request("POST", "/v1/conversations", {"title": title}, headers=pipeline.headers({"x-user-id": user}))[2]["id"]


with Pipeline(PARLEY_MODEL="/nonexistent", PARLEY_SIMULATE="--simulate-speed=100") as pipeline:
    env = dict(os.environ, PARLEY_STATE=pipeline.state)
    folder = os.path.join(pipeline.state, "search")
    check("an index is there once the pipeline is", until(lambda: search(pipeline, "word")[0] == 200))
    one = conversation(pipeline, "Fruit <b>")
    sent = say(pipeline, one, "The red apple & the <script>pear</script>")
    results = found(pipeline, "apple")
    check("what was just sent is found", [r["message_id"] for r in results] == [sent["user_message"]["id"]], results)
    result = results[0]
    check("a result names conversation, title and time", (result["conversation_id"], result["title"]) == (one, "Fruit <b>")
          and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["created_at"]) and result["score"] > 0, result)
    check("the snippet's only markup is its marks",
          result["snippet"] == "The red <mark>apple</mark> &amp; the &lt;script&gt;pear&lt;/script&gt;", result["snippet"])
    check("phrases, prefixes and all words", len(found(pipeline, '"red apple"')) == 1 and not found(pipeline, '"apple red"')
          and len(found(pipeline, "appl*")) == 1 and not found(pipeline, "apple banana"))
    answer = "".join(b.get("text", "") for b in sent["message"]["content"])
    word = max(re.findall(r"[A-Za-z]+", answer) or ["apple"], key=len)
    check("an answer is found as well", any(r["message_id"] == sent["message"]["id"] for r in found(pipeline, word)), (word, answer))
    check("nobody else finds it", found(pipeline, "apple", "bob") == [])
    other = subprocess.run([CONVSTORE, "org", "create", "other", "--json"], env=env, capture_output=True, text=True)
    key = subprocess.run([CONVSTORE, "key", "create", "--org", "other", "--json"], env=env, capture_output=True, text=True)

    strange = pipeline.request("GET", "/v1/search?q=apple", headers={"x-api-key": json.loads(key.stdout)["key"], "x-user-id": "ann"})
    check("nor a user of that name in another org", strange[0] == 200 and strange[2]["data"] == [], strange)

    for query, limit, why in (("", None, "no word"), ("?!", None, "no word"), ("x" * 2000, None, "too long"), ("apple", "0", "limit"),
                              ("apple", "51", "limit"), ("apple", "x", "limit")):
        status, _, body = search(pipeline, query, **({"limit": limit} if limit else {}))
        check(f"{query[:10]!r} with limit {limit} is a 400: {why}", status == 400 and body["error"]["type"] == "invalid_request_error", body)
    check("a forged cursor is a 400", search(pipeline, "apple", cursor="abc")[0] == 400)
    check("no q is a 400", pipeline.request("GET", "/v1/search", headers=pipeline.headers())[0] == 400)
    check("no key is a 401", pipeline.request("GET", "/v1/search?q=apple", headers={})[0] == 401)

    many = conversation(pipeline, "many")
    for n in range(7):
        say(pipeline, many, f"kumquat number {n}")
    seen, cursor, pages = [], None, 0
    while pages < 9:
        body = search(pipeline, "kumquat number", limit=3, **({"cursor": cursor} if cursor else {}))[2]
        seen += [r["message_id"] for r in body["data"]]
        cursor, pages = body["next_cursor"], pages + 1
        if not cursor:
            break
        say(pipeline, many, "another kumquat number")  # must not shift the pages
    check("pages give each once, while more is sent", pages == 3 and len(seen) == len(set(seen)) == 7, (pages, len(seen)))

    # The follower dies and is away; what is sent meanwhile is found.
    old = pipeline.kill("convstore-index")
    say(pipeline, one, "a durian")
    check("found while the follower is away", len(found(pipeline, "durian")) == 1)
    pipeline.wait_restarted("convstore-index", old)
    pipeline.request("DELETE", f"/v1/conversations/{many}", headers=pipeline.headers({"x-user-id": "ann"}))
    check("a deleted conversation is gone at once", found(pipeline, "kumquat") == [])

    # Damage: a typed error, and a new index by itself.
    current = open(os.path.join(folder, "current")).read().strip()
    for path in glob.glob(os.path.join(folder, current, "*.glass")):
        with open(path, "r+b") as file:
            size = os.path.getsize(path)
            file.write(b"\x5a" * size)
    # Who has it open has the little there is in memory: the follower that begins anew meets the damage.
    pipeline.kill("convstore-index")
    statuses = set()

    def answers():
        status, _, body = search(pipeline, "durian")
        statuses.add((status, body.get("error", {}).get("type"), body.get("error", {}).get("message")))
        return status == 200 and len(body["data"]) == 1 and open(os.path.join(folder, "current")).read().strip() != current

    check("a damaged index is made anew by itself", until(answers, 20), statuses)
    check("and until then is a 503 that says so", all(s in ((200, None, None), (503, "api_error", "the search index is damaged: convstore index makes it anew"))
                                                      for s in statuses), statuses)
    again = subprocess.run([CONVSTORE, "index", "--rebuild", "--wait", "20s"], env=env, capture_output=True, text=True, timeout=60)
    check("index --rebuild asks the running follower", again.returncode == 0, again)
    check("and what was found is found again", len(found(pipeline, "durian")) == 1 and len(found(pipeline, "apple")) == 1)
    told = subprocess.run([CONVSTORE, "search", "--org", "pipeline", "--user", "ann", "durian"], env=env, capture_output=True, text=True)
    check("convstore search answers the same", json.loads(told.stdout)["data"][0]["snippet"] == found(pipeline, "durian")[0]["snippet"], told)
    second = subprocess.run([CONVSTORE, "index", "--once"], env=env, capture_output=True, text=True)
    check("a second indexer is refused with 65", second.returncode == 65, second)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
