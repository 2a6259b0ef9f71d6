"""A user's data is taken away over HTTP and by convstore, and afterwards no file of the state folder holds a word of it."""

import http.client
import json
import os
import subprocess

from harness import BIN, Pipeline, need_model, run_tests

need_model()
SECRET = "Schnurrhaar-7741-the-cat"


def convstore(*arguments):
    done = subprocess.run([os.path.join(BIN, "convstore"), *arguments], env=dict(os.environ, PARLEY_STATE=pipeline.state),
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def talk(user):
    status, body = call("POST", "/v1/conversations", user, {"title": SECRET, "system": SECRET})
    assert status == 201, body
    status, sent = call("POST", f"/v1/conversations/{body['id']}/messages", user,
                        {"content": f"Say {SECRET}.", "stream": False, "max_tokens": 8}, **{"idempotency-key": "k-" + user})
    assert status == 200, sent
    return body["id"]


def call(method, path, user, body=None, **headers):
    connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=60)
    connection.request(method, path, None if body is None else json.dumps(body),
                       {"content-type": "application/json", "x-api-key": pipeline.key, "x-user-id": user, **headers})
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, json.loads(raw) if raw else None


def holding(text):
    found = []
    for folder, _, names in os.walk(pipeline.state):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    if text.encode() in file.read():
                        found.append(os.path.relpath(path, pipeline.state))
    return found


def test_no_file_holds_a_users_words_and_erasure_leaves_nothing_to_read():
    conversation = talk("ann")
    kept = talk("bea")
    assert holding(SECRET) == [], holding(SECRET)
    code, out, err = convstore("backup", os.path.join(pipeline.state, "copy"))
    assert code == 0 and "verified" in out, err
    assert not os.path.exists(os.path.join(pipeline.state, "copy", "keys"))

    status, said = call("DELETE", "/v1/me/data", "ann")
    assert status == 200 and said["type"] == "user_data_erased" and said["conversations"] == 1, said
    assert call("GET", f"/v1/conversations/{conversation}", "ann")[0] == 404
    assert call("GET", "/v1/conversations", "ann")[1]["data"] == []
    assert call("GET", f"/v1/conversations/{kept}", "bea")[1]["title"] == SECRET
    # The copy from before opens for the one and not for the other.
    code, out, _ = convstore("get", "--store", os.path.join(pipeline.state, "copy"), "--keys", os.path.join(pipeline.state, "store", "keys"),
                             "conv", kept)
    assert code == 0 and SECRET in out, out
    code, out, err = convstore("get", "--store", os.path.join(pipeline.state, "copy"), "--keys", os.path.join(pipeline.state, "store", "keys"),
                               "conv", conversation)
    assert code != 0 and "erased" in err and SECRET not in out + err, err
    code, out, err = convstore("check")
    assert code == 0, out + err

    # A second time there is nobody; and whoever comes back begins anew.
    assert call("DELETE", "/v1/me/data", "ann")[0] == 404
    talk("ann")
    assert len(call("GET", "/v1/conversations", "ann")[1]["data"]) == 1


def test_convstore_erases_and_says_what_it_did():
    conversation = talk("cleo")
    org = json.loads(convstore("org", "list", "--json")[1].splitlines()[0])["name"]
    code, out, err = convstore("user", "erase", "--org", org, "--user", "cleo", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["conversations"] == 1 and said["plain_rows"] == 0 and said["verified"] is True, said
    assert call("GET", f"/v1/conversations/{conversation}", "cleo")[0] == 404
    code, out, err = convstore("user", "erase", "--org", org, "--user", "nobody")
    assert code == 66 and "no such user" in err, (code, err)
    code, out, err = convstore("user", "erase", "--org", "no-such-org", "--user", "cleo")
    assert code == 66, (code, err)
    changes = convstore("tail")[1]
    assert changes.count('"user.erased"') == 2 and SECRET not in changes


def test_what_is_exported_over_http_comes_in_again():
    talk("dora")
    connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=60)
    connection.request("GET", "/v1/export", None, {"x-api-key": pipeline.key, "x-user-id": "dora"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    lines = [json.loads(line) for line in text.splitlines()]
    assert response.status == 200 and [line["type"] for line in lines] == ["export", "conversation", "message", "message", "end"], text
    path = os.path.join(pipeline.state, "dora.jsonl")
    with open(path, "w") as file:
        file.write(text)
    org = json.loads(convstore("org", "list", "--json")[1].splitlines()[0])["name"]
    code, out, err = convstore("export", "--org", org, "--user", "dora")
    assert code == 0 and out == text, err
    code, out, err = convstore("import", path, "--org", org, "--user", "eve", "--json")
    assert code == 0 and json.loads(out) == {"conversations": 1, "created": 1, "messages": 2, "left_out": 0}, (out, err)
    code, out, err = convstore("import", path, "--org", org, "--user", "eve")
    assert code == 0 and "0 new; 0 new messages" in out, (out, err)
    listed = call("GET", "/v1/conversations", "eve")[1]["data"]
    assert len(listed) == 1 and listed[0]["title"] == SECRET and listed[0]["message_count"] == 2, listed
    status, sent = call("POST", f"/v1/conversations/{listed[0]['id']}/messages", "eve", {"content": "Go on.", "stream": False, "max_tokens": 4})
    assert status == 200, sent
    code, out, err = convstore("export", "--org", org, "--user", "eve", "--format", "markdown")
    assert code == 0 and out.startswith(f"# {SECRET}\n") and f"Say {SECRET}." in out and "Go on." in out, out
    with open(path, "w") as file:
        file.write(text[:-40])
    code, out, err = convstore("import", path, "--org", org, "--user", "eve")
    assert code == 65 and ("cut" in err or "line" in err), (code, err)
    code, out, err = convstore("check")
    assert code == 0, out + err
    os.remove(path)


if __name__ == "__main__":
    with Pipeline() as pipeline:
        run_tests(globals())
