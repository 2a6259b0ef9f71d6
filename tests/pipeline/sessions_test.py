"""People log in, stay in, are put out: passwords, the one-time link, cookies, other sites, guessing."""

import http.client
import json
import os
import time

from harness import ROOT, Pipeline, run_tests

os.environ["CHATD_SESSION_RENEW"] = "1s"
pipeline = Pipeline()
build = os.environ.get("PARLEY_BUILD", "build")
BIN = os.path.join(build if os.path.isabs(build) else os.path.join(ROOT, build), "bin")
ORIGIN = f"http://{pipeline.host}:{pipeline.port}"


convstore = pipeline.convstore


def person(name, password="correct horse", org="pipeline", *more):
    convstore("user", "create", "--org", org, "--user", name, "--password-stdin", "--json", *more, stdin=password)


def call(method, path, body=None, cookie=None, origin=ORIGIN, **headers):
    """(status, headers with set-cookie, body)"""
    connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=30)
    named = {"content-type": "application/json", **headers}
    if cookie:
        named["cookie"] = f"other=1; parley_session={cookie}"
    if origin:
        named["origin"] = origin
    connection.request(method, path, None if body is None else json.dumps(body), named)
    response = connection.getresponse()
    raw = response.read()
    got = {k.lower(): v for k, v in response.getheaders()}
    connection.close()
    return response.status, got, json.loads(raw) if raw else None


def login(name, password="correct horse", **members):
    return call("POST", "/v1/sessions", {"user": name, "password": password, **members})


def cookie_of(headers):
    value = headers["set-cookie"]
    assert "HttpOnly" in value and "SameSite=Strict" in value and "Path=/" in value, value
    return value.split(";")[0].removeprefix("parley_session=")


def test_a_person_logs_in_talks_and_logs_out():
    person("ann")
    status, headers, said = login("ann")
    assert status == 200 and said["user"] == "ann" and said["token"] == cookie_of(headers), said
    assert headers["cache-control"] == "no-store"
    cookie = cookie_of(headers)
    status, _, me = call("GET", "/v1/me", cookie=cookie)
    assert status == 200 and me["user"] == "ann" and me["auth"] == "session" and me["org"] == "pipeline", me
    status, _, made = call("POST", "/v1/conversations", {"title": "mine"}, cookie=cookie)
    assert status == 201
    # The same token as Bearer needs no origin: no browser sends it by itself.
    status, _, listed = call("GET", "/v1/conversations", origin=None, authorization=f"Bearer {said['token']}")
    assert status == 200 and [c["id"] for c in listed["data"]] == [made["id"]]
    # A session is one user's: x-user-id is a key's way to speak for others.
    status, _, listed = call("GET", "/v1/me", cookie=cookie, **{"x-user-id": "bob"})
    assert listed["user"] == "ann"
    status, headers, _ = call("DELETE", "/v1/sessions/current", cookie=cookie)
    assert status == 200 and "Max-Age=0" in headers["set-cookie"]
    time.sleep(1.1)
    assert call("GET", "/v1/me", cookie=cookie)[0] == 401
    assert call("DELETE", "/v1/sessions/current", origin=None, **{"x-api-key": pipeline.key})[0] == 400


def test_nobody_gets_in_with_a_wrong_name_password_or_form():
    person("bea")
    convstore("org", "create", "other", "--json")
    person("twin", "one", "pipeline")
    person("twin", "two", "other")
    for name, password, more in (("bea", "wrong", {}), ("bea", "", {}), ("nobody", "correct horse", {}), ("default", "x", {}),
                                 ("twin", "one", {}), ("bea", "correct horse", {"org": "other"}), ("bea", "correct horse", {"org": "none"})):
        status, headers, said = login(name, password, **more)
        assert status == 401 and said["error"]["message"] == "user or password is wrong", (name, password, more, said)
        assert "set-cookie" not in headers
    assert login("twin", "two", org="other")[0] == 200
    for body in ({}, {"user": "bea"}, {"password": "x"}, {"user": 5, "password": "x"}, {"user": "x" * 129, "password": "x"},
                 {"user": "bea", "password": "x" * 2000}, [1]):
        assert call("POST", "/v1/sessions", body)[0] == 400, body
    assert call("POST", "/v1/sessions", {"user": "bea", "password": "x" * 9000})[0] == 413
    for token in ("ps_", "ps_" + "A" * 43, "x", pipeline.key, "ps_\u00e9".encode().decode("latin1")):
        assert call("GET", "/v1/me", cookie=token)[0] == 401, token


def test_another_site_can_change_nothing():
    person("cid")
    cookie = cookie_of(login("cid")[1])
    for origin in (None, "null", "http://evil.example", ORIGIN + ".evil.example", ORIGIN.replace("http:", "https:"), f"http://{pipeline.host}:1"):
        status, _, said = call("POST", "/v1/conversations", {}, cookie=cookie, origin=origin)
        assert status == 403 and "another site" in said["error"]["message"], (origin, said)
        assert call("DELETE", "/v1/sessions/all", cookie=cookie, origin=origin)[0] == 403
    assert call("GET", "/v1/conversations", cookie=cookie, origin=None)[0] == 200
    assert call("POST", "/v1/conversations", {}, cookie=cookie)[0] == 201
    # Nor log a person in as somebody else.
    status, headers, _ = call("POST", "/v1/sessions", {"user": "cid", "password": "correct horse"}, origin="http://evil.example")
    assert status == 403 and "set-cookie" not in headers
    # No page of another site may read what we answer.
    assert "access-control-allow-origin" not in call("GET", "/v1/me", cookie=cookie, origin="http://evil.example")[1]


def test_a_token_is_renewed_and_the_old_one_goes_with_it():
    person("dan")
    first = cookie_of(login("dan")[1])
    status, headers, _ = call("GET", "/v1/me", cookie=first)
    assert status == 200 and "set-cookie" not in headers
    time.sleep(1.1)
    status, headers, _ = call("GET", "/v1/me", cookie=first)
    second = cookie_of(headers)
    assert status == 200 and second != first
    assert call("GET", "/v1/conversations", cookie=first)[0] == 200  # under way elsewhere: a minute of grace
    assert call("GET", "/v1/conversations", cookie=second)[0] == 200
    assert "set-cookie" not in call("GET", "/v1/me", cookie=first)[1]
    assert call("DELETE", "/v1/sessions/current", cookie=second)[0] == 200
    time.sleep(1.1)
    assert call("GET", "/v1/me", cookie=first)[0] == 401 and call("GET", "/v1/me", cookie=second)[0] == 401


def test_logging_out_everywhere_and_another_password_end_every_session():
    person("eve")
    cookies = [cookie_of(login("eve")[1]) for _ in range(3)]
    assert call("DELETE", "/v1/sessions/all", cookie=cookies[0])[0] == 200
    time.sleep(1.1)
    assert [call("GET", "/v1/me", cookie=c)[0] for c in cookies] == [401] * 3
    again = cookie_of(login("eve")[1])
    assert call("GET", "/v1/me", cookie=again)[0] == 200
    person("eve", "another", "pipeline", "--replace")
    time.sleep(1.1)
    assert call("GET", "/v1/me", cookie=again)[0] == 401
    assert login("eve")[0] == 401 and login("eve", "another")[0] == 200


def test_sessions_outlive_a_crash_of_chatd_and_of_the_store():
    person("flo")
    cookie = cookie_of(login("flo")[1])
    for name in ("convstore", "chatd"):
        pid = pipeline.kill(name)
        pipeline.wait_restarted(name, pid)
    pipeline.wait_ready(20)
    assert call("GET", "/v1/me", cookie=cookie)[0] == 200


def link():
    with open(os.path.join(pipeline.state, "run", "login.link")) as file:
        return file.read().strip()


def test_the_link_of_the_start_lets_a_person_in_once():
    url = link()
    assert url.startswith(ORIGIN + "/#login=") and os.stat(os.path.join(pipeline.state, "run", "login.link")).st_mode & 0o777 == 0o600
    secret = url.split("=", 1)[1]
    assert call("POST", "/v1/sessions", {"link": "x" * 43})[0] == 401
    status, headers, said = call("POST", "/v1/sessions", {"link": secret})
    assert status == 200 and said["user"] == "default", said
    assert call("GET", "/v1/me", cookie=cookie_of(headers))[2]["user"] == "default"
    assert call("POST", "/v1/sessions", {"link": secret})[0] == 401
    assert not os.path.exists(os.path.join(pipeline.state, "run", "login.link"))


def test_the_limits_of_an_organisation_hold_for_its_people():
    convstore("org", "create", "small", "--limits", json.dumps({"requests": 1}), "--json")
    person("ida", org="small")
    cookie = cookie_of(login("ida")[1])
    conversation = call("POST", "/v1/conversations", {}, cookie=cookie)[2]["id"]
    statuses = [call("POST", f"/v1/conversations/{conversation}/messages", {"content": "Say hi.", "max_tokens": 2, "stream": False}, cookie=cookie)[0] for _ in range(3)]
    assert statuses[0] == 200 and 429 in statuses, statuses


def test_who_guesses_has_to_wait_and_who_knows_gets_in_after():
    person("guy")
    statuses = [login("guy", f"guess {i}")[0] for i in range(8)]
    assert statuses.count(401) <= 5 + 1 and statuses[-1] == 429, statuses
    status, headers, said = login("guy")
    assert status == 429 and 1 <= int(headers["retry-after"]) <= 60, (status, headers, said)
    person("han")
    assert login("han")[0] == 200  # others are not kept out
    time.sleep(int(headers["retry-after"]) + 0.1)
    assert login("guy")[0] == 200
    # Guessing at a link waits as well.
    assert 429 in [call("POST", "/v1/sessions", {"link": str(i)})[0] for i in range(12)]


if __name__ == "__main__":
    try:
        run_tests(globals())
    finally:
        pipeline.stop()
