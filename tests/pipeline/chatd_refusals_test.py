#!/usr/bin/env python3
"""What chatd refuses, and how, without any model: chatd and convstore on a state of their own.

usage: chatd_refusals.py [BIN_DIR]   (default: build/bin of this checkout)
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import harness
from harness import ROOT, check, failures

BIN = sys.argv[1] if len(sys.argv) > 1 else harness.BIN
VERSION = {"anthropic-version": "2023-06-01"}


class Chatd:
    """A chatd of its own, stopped at the end of the block; `url` parts come from its ready line."""

    def __init__(self, state, *args, env=None):
        self.state = state
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "chatd"), "serve", "--bind", "127.0.0.1:0", "--state", state, *args],
            stderr=self.log, env={**os.environ, **(env or {})})
        self.host, self.port = "127.0.0.1", None
        until = time.time() + 10
        while time.time() < until and self.port is None and self.process.poll() is None:
            found = re.search(r"event=chatd.ready url=https?://([^:]+):(\d+)", self.text())
            if found:
                self.port = int(found.group(2))
            else:
                time.sleep(0.02)

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def __enter__(self):
        assert self.port, self.text()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, headers=None, connection=None):
        own = connection or http.client.HTTPConnection(self.host, self.port, timeout=10)
        own.request(method, path, body=body, headers=headers or {})
        response = own.getresponse()
        data = response.read()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, data


def error_of(data):
    try:
        return json.loads(data)["error"]
    except (ValueError, KeyError):
        return {"type": None, "message": data}


def paths_and_methods(chatd):
    for path in ("/nope", "/v1/complete", "/v1/completions", "/v1/messages/batches/x/y", "/v1/files", "/v1/messages/x/y"):
        status, headers, data = chatd.ask("GET", path)
        check(f"{path} is a JSON 404", status == 404 and error_of(data)["type"] == "not_found_error", (status, data))
        check(f"{path} carries one id under two names",
              headers.get("request-id", "").startswith("req_") and headers["request-id"] == headers.get("x-request-id")
              and json.loads(data)["request_id"] == headers["request-id"], headers)
    for method, path, allow in (("GET", "/v1/messages", "POST"), ("DELETE", "/v1/models", "GET, HEAD"),
                                ("OPTIONS", "/v1/messages", "POST"), ("PUT", "/v1/conversations", "GET, HEAD, POST")):
        status, headers, data = chatd.ask(method, path)
        check(f"{method} {path} is 405 with Allow", status == 405 and headers.get("allow") == allow
              and error_of(data)["type"] == "invalid_request_error", (status, headers))
    status, _, _ = chatd.ask("GET", "/healthz/")
    check("a slash at the end is the same path", status == 200, status)
    for path in ("/api/hello", "/health", "/healthz"):
        connection = http.client.HTTPConnection(chatd.host, chatd.port, timeout=10)
        status, _, data = chatd.ask("HEAD", path, connection=connection)
        again, _, body = chatd.ask("GET", path, connection=connection)
        check(f"HEAD {path} has no body and leaves the connection whole", (status, data, again) == (200, b"", 200) and body, (status, data, again))
    status, headers, _ = chatd.ask("GET", "/readyz")
    check("/readyz is 503 without a filter", status == 503 and 1 <= int(headers.get("retry-after", 0)) <= 60, (status, headers))


def keys(chatd, key):
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]})
    status, _, data = chatd.ask("POST", "/v1/messages", body, VERSION)
    check("no key is 401", status == 401 and error_of(data) == {"type": "authentication_error", "message": "x-api-key header is required"}, data)
    status, _, data = chatd.ask("POST", "/v1/messages", body, {**VERSION, "x-api-key": "pk_wrong"})
    check("a wrong key is 401", status == 401 and error_of(data)["message"] == "invalid x-api-key", data)
    status, _, data = chatd.ask("POST", "/v1/messages", body, {**VERSION, "x-api-key": "pk_wrong", "authorization": "Bearer " + key})
    check("x-api-key decides where both are given", status == 401, data)
    status, _, data = chatd.ask("POST", "/v1/messages", "x" * 300_000, VERSION)
    check("the key is looked at before the size", status == 401, (status, data))
    for header in ({"x-api-key": key}, {"Authorization": "bearer " + key}):
        status, _, data = chatd.ask("GET", "/v1/models", headers=header)
        check(f"{list(header)[0]} opens", status == 200 and json.loads(data)["data"] == [], (status, data))
    return {"x-api-key": key}


def bodies(chatd, auth):
    good = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    status, _, data = chatd.ask("POST", "/v1/messages", "x" * 300_000, {**auth, **VERSION})
    check("a body over the bound is 413", status == 413 and error_of(data)["type"] == "request_too_large", (status, data))
    status, _, data = chatd.ask("POST", "/v1/messages", json.dumps(good), auth)
    check("no version is 400", status == 400 and error_of(data)["message"] == "anthropic-version: header is required", data)
    status, _, data = chatd.ask("POST", "/v1/messages", json.dumps(good), {**auth, "anthropic-version": "new"})
    check("a version that is no date is 400", status == 400, data)
    status, _, data = chatd.ask("POST", "/v1/messages", "{", {**auth, **VERSION})
    check("what is not JSON is 400", status == 400 and error_of(data)["message"].startswith("The request body is not valid JSON"), data)
    for change, text in (({"max_tokens": "5"}, "max_tokens:"), ({"messages": "x"}, "messages:"),
                         ({"stream": 1}, "stream:")):
        status, _, data = chatd.ask("POST", "/v1/messages", json.dumps({**good, **change}), {**auth, **VERSION})
        check(f"{change} is 400 and names the field", status == 400 and error_of(data)["message"].startswith(text), data)
    status, headers, data = chatd.ask("POST", "/v1/messages", json.dumps(good), {**auth, **VERSION})
    check("while no model row exists a model call is 503, never 404",
          status == 503 and error_of(data)["type"] == "api_error" and 1 <= int(headers.get("retry-after", 0)) <= 60, (status, data))
    status, _, data = chatd.ask("POST", "/v1/messages/count_tokens", json.dumps(good), {**auth, **VERSION})
    check("counting without a model is 503", status == 503, (status, data))
    status, _, data = chatd.ask("POST", "/v1/messages", json.dumps(good), {**auth, **VERSION, "content-encoding": "gzip"})
    check("an encoded body is 400", status == 400, (status, data))
    deep = "[" * 200 + "]" * 200
    status, _, data = chatd.ask("POST", "/v1/messages", json.dumps(good)[:-1] + ',"x":' + deep + "}", {**auth, **VERSION})
    check("JSON deeper than 128 is 400", status == 400, (status, data))


def chat_completions(chatd, auth, key):
    def ask(body, headers, method="POST"):
        status, got, data = chatd.ask(method, "/v1/chat/completions", body if isinstance(body, str) else json.dumps(body), headers)
        return status, got, json.loads(data)
    good = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    status, got, answer = ask(good, {})
    check("without a key chat completions are 401 in OpenAI's shape",
          status == 401 and list(answer) == ["error"] and answer["error"]["code"] == "invalid_api_key", (status, answer))
    check("and carry the id in x-request-id", got.get("x-request-id", "").startswith("req_"), got)
    bearer = {"authorization": "Bearer " + key}
    status, got, answer = ask("", bearer, "GET")
    check("GET on chat completions is 405 in that shape", status == 405 and got["allow"] == "POST" and list(answer) == ["error"], (status, answer))
    status, _, answer = ask("x" * 300_000, bearer)
    check("a body over the bound is 413 in that shape", status == 413 and list(answer) == ["error"], (status, answer))
    status, _, answer = ask({**good, "temperature": 3}, bearer)
    check("no version header is needed, and a wrong field is named",
          status == 400 and answer["error"]["param"] == "temperature" and answer["error"]["type"] == "invalid_request_error", answer)
    status, got, answer = ask({**good, "n": 2}, bearer)
    check("what is not supported comes after the model: without one 503 server_error",
          status == 503 and answer["error"]["type"] == "server_error" and int(got["retry-after"]) >= 1, (status, answer))
    status, _, data = chatd.ask("GET", "/v1/models/nobody", headers=bearer)
    answer = json.loads(data)
    check("an unknown model's 404 is read by both SDKs", status == 404 and answer["type"] == "error"
          and answer["error"]["type"] == "not_found_error" and answer["error"]["code"] == "model_not_found", answer)
    status, _, data = chatd.ask("GET", "/v1/responses", headers=bearer)
    answer = json.loads(data)
    check("and so is an unknown path's", status == 404 and answer["type"] == "error" and "param" in answer["error"], answer)


def conversations(chatd, auth):
    status, _, data = chatd.ask("POST", "/v1/conversations", json.dumps({"title": "one", "metadata": {"a": 1}}), auth)
    made = json.loads(data)
    check("a conversation is made with 201", status == 201 and made["title"] == "one" and made["metadata"] == {"a": 1}, data)
    path = "/v1/conversations/" + made["id"]
    status, _, data = chatd.ask("GET", path, headers={**auth, "x-user-id": "another"})
    check("another user's conversation is 404", status == 404 and error_of(data)["type"] == "not_found_error", (status, data))
    status, _, data = chatd.ask("GET", "/v1/conversations", headers={**auth, "x-user-id": "another"})
    check("another user's list is empty", json.loads(data)["data"] == [], data)
    status, _, data = chatd.ask("PATCH", path, json.dumps({"pinned": True}), {**auth, "if-match": "1"})
    check("a patch with the right rev is taken", status == 200 and json.loads(data)["rev"] == 2, data)
    status, _, _ = chatd.ask("PATCH", path, json.dumps({"pinned": False}), {**auth, "if-match": "1"})
    check("a patch that lost the race is 412", status == 412, status)
    status, _, data = chatd.ask("PATCH", path, json.dumps({"title": 5}), auth)
    check("a title that is no string is 400 and named", status == 400 and error_of(data)["message"].startswith("title:"), data)
    status, _, data = chatd.ask("POST", path + "/messages", json.dumps({"content": "hi"}), auth)
    check("a send without any model is 503", status == 503, (status, data))
    status, _, data = chatd.ask("GET", path + "/messages", headers=auth)
    check("and stores nothing", json.loads(data) == {"data": [], "has_more": False, "next_cursor": None}, data)
    status, _, data = chatd.ask("POST", path + "/messages", json.dumps({}), auth)
    check("a send without content is 400", status == 400 and error_of(data)["message"] == "content: Field required", data)
    for query in ("limit=0", "limit=201", "limit=x", "order=up", "before=zzz"):
        status, _, data = chatd.ask("GET", path + "/messages?" + query, headers=auth)
        check(f"?{query} is 400", status == 400, (status, data))
    status, _, _ = chatd.ask("GET", "/v1/conversations?cursor=forged", headers=auth)
    check("a forged cursor is 400", status == 400, status)
    for _ in range(3):
        chatd.ask("POST", "/v1/conversations", "{}", auth)
    seen, cursor = [], ""
    while cursor is not None:
        _, _, data = chatd.ask("GET", f"/v1/conversations?limit=2&cursor={cursor}", headers=auth)
        page = json.loads(data)
        seen += [c["id"] for c in page["data"]]
        cursor = page["next_cursor"]
    check("pages show each conversation once", len(seen) == 4 and len(set(seen)) == 4, seen)
    status, _, _ = chatd.ask("DELETE", path, headers=auth)
    gone, _, _ = chatd.ask("GET", path, headers=auth)
    check("a deleted conversation is 404", (status, gone) == (200, 404), (status, gone))


def drain(chatd):
    connection = http.client.HTTPConnection(chatd.host, chatd.port, timeout=10)
    chatd.ask("GET", "/healthz", connection=connection)
    began = time.time()
    chatd.process.send_signal(signal.SIGTERM)
    try:
        code = chatd.process.wait(10)
    except subprocess.TimeoutExpired:
        code = None
    check("SIGTERM with an idle client drains at once, exit 0", code == 0 and time.time() - began < 3, (code, time.time() - began))
    check("and frees the port", socket.socket().connect_ex((chatd.host, chatd.port)) != 0)


def start_store(state):
    store = subprocess.Popen([os.path.join(BIN, "convstore"), "serve", "--state", state], stderr=subprocess.DEVNULL)
    env = {**os.environ, "PARLEY_STATE": state}
    until = time.time() + 10
    while True:
        made = subprocess.run([os.path.join(BIN, "convstore"), "org", "create", "o", "--json"], env=env, capture_output=True)
        if made.returncode == 0:
            break
        assert time.time() < until, made.stderr
        time.sleep(0.05)
    key = subprocess.run([os.path.join(BIN, "convstore"), "key", "create", "--org", "o", "--json"], env=env, capture_output=True, check=True)
    return store, json.loads(key.stdout)["key"]


def with_store(folder):
    state = os.path.join(folder, "s")
    os.makedirs(state, mode=0o700)
    with Chatd(state, "--body-max", "200KB") as chatd:
        status, _, _ = chatd.ask("GET", "/v1/models", headers={"x-api-key": "pk_any"})
        check("before there is a store a key cannot be judged: 503, not 401", status == 503, status)
        store, key = start_store(state)
        try:
            until = time.time() + 5
            while time.time() < until and 503 in (
                    chatd.ask("GET", "/v1/models", headers={"x-api-key": key})[0],
                    chatd.ask("POST", "/v1/conversations", "{}", {"x-api-key": key, "x-user-id": "first"})[0]):
                time.sleep(0.05)
            paths_and_methods(chatd)
            auth = keys(chatd, key)
            bodies(chatd, auth)
            conversations(chatd, auth)
            chat_completions(chatd, auth, key)
            check("user text and keys are not in the log", "hi" not in re.findall(r"\w+", chatd.text()) and key not in chatd.text())
            store.kill()
            store.wait()
            time.sleep(1.5)
            status, _, data = chatd.ask("POST", "/v1/conversations", "{}", auth)
            check("without convstore a write is 503 and a read still works",
                  status == 503 and chatd.ask("GET", "/v1/conversations", headers=auth)[0] == 200, (status, data))
        finally:
            if store.poll() is None:
                store.kill()
                store.wait()
        drain(chatd)


def command_line(folder):
    def run(*args, env=None):
        return subprocess.run([os.path.join(BIN, "chatd"), "serve", "--state", os.path.join(folder, "c"), *args],
                              capture_output=True, text=True, timeout=10, env={**os.environ, **(env or {})})
    done = run("--bind", "0.0.0.0:0", "--no-auth")
    check("--no-auth beyond loopback is refused with 78", done.returncode == 78 and "no-auth" in done.stderr, (done.returncode, done.stderr))
    done = run("--tls-cert", "x.pem")
    check("a certificate without its key is refused with 78", done.returncode == 78, (done.returncode, done.stderr))
    done = run("--ws-message-max", "0")
    check("a WebSocket that could take no message is refused with 78", done.returncode == 78 and "--ws-message-max" in done.stderr, (done.returncode, done.stderr))
    done = run("--nonsense")
    check("an unknown flag is 64", done.returncode == 64, done.returncode)
    config = os.path.join(folder, "chatd.toml")
    with open(config, "w") as file:
        file.write("allow-unfiltered = true\n")
    done = run("--config", config, "--bind", "127.0.0.1:0")
    check("--allow-unfiltered in a file is refused with 78", done.returncode == 78, (done.returncode, done.stderr))
    with Chatd(os.path.join(folder, "e"), "--no-auth", env={"CHATD_ALLOW_UNFILTERED": "1"}) as chatd:
        _, _, data = chatd.ask("GET", "/readyz")
        check("--allow-unfiltered in the environment does nothing", b"stamp key" in data, data)
    example = os.path.join(ROOT, "examples", "etc", "chatd.toml")
    with Chatd(os.path.join(folder, "x"), "--config", example) as chatd:
        check("the example configuration is accepted", chatd.ask("GET", "/healthz")[0] == 200)
        chatd.process.send_signal(signal.SIGHUP)
        until = time.time() + 5
        while "chatd.reloaded" not in chatd.text() and time.time() < until:
            time.sleep(0.05)
        check("SIGHUP reads it again", "chatd.reloaded" in chatd.text() and chatd.ask("GET", "/healthz")[0] == 200)


def tls(folder):
    if not shutil.which("openssl"):
        print("SKIPPED TLS: no openssl program")
        return
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    with Chatd(os.path.join(folder, "t"), "--no-auth", "--tls-cert", cert, "--tls-key", key) as chatd:
        context = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection(chatd.host, chatd.port, timeout=10, context=context)
        status, _, _ = chatd.ask("GET", "/healthz", connection=connection)
        check("HTTPS answers", status == 200, status)
        plain = socket.create_connection((chatd.host, chatd.port), timeout=10)
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        try:
            got = plain.recv(100)
        except ConnectionResetError:
            got = b""
        check("plain HTTP on the TLS port is not answered", not got.startswith(b"HTTP/1.1 200"), got)

        # A new certificate in place: new connections get it, the one that is open goes on.
        before = ssl.get_server_certificate((chatd.host, chatd.port))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=second",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)

        def reload(word, count):
            chatd.process.send_signal(signal.SIGHUP)
            until = time.time() + 5
            while chatd.text().count(word) < count and time.time() < until:
                time.sleep(0.05)
            return chatd.text().count(word) >= count
        check("SIGHUP is heard", reload("chatd.reloaded", 1))
        after = ssl.get_server_certificate((chatd.host, chatd.port))
        check("SIGHUP puts the new certificate in place", after != before and after.strip() == open(cert).read().strip(), after)
        check("a connection from before goes on", chatd.ask("GET", "/healthz", connection=connection)[0] == 200)
        with open(cert, "w") as file:
            file.write("no certificate")
        check("a certificate that cannot be read is said", reload("chatd.reload_failed", 1), chatd.text()[-500:])
        check("and the one before stays", ssl.get_server_certificate((chatd.host, chatd.port)) == after)


def cors(folder):
    page = "https://app.example"
    preflight = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key, content-type"}

    def ask(chatd, method, path, headers):
        status, got, _ = chatd.ask(method, path, headers=headers)
        return status, {name.lower(): value for name, value in dict(got).items()}
    with Chatd(os.path.join(folder, "c"), "--cors-origin", page) as chatd:
        status, got = ask(chatd, "OPTIONS", "/v1/messages", preflight)
        check("a page that is named may ask", status == 204 and got.get("access-control-allow-origin") == page and
              got.get("access-control-allow-methods") == "POST" and got.get("access-control-allow-headers") == "x-api-key, content-type", (status, got))
        check("no preflight offers cookies", "access-control-allow-credentials" not in got, got)
        check("a path that is none has a preflight as well", ask(chatd, "OPTIONS", "/nothing", preflight)[0] == 204)
        status, got = ask(chatd, "POST", "/v1/messages", {"origin": page})
        check("it can read why it was refused", status in (401, 503) and got.get("access-control-allow-origin") == page and
              "request-id" in got.get("access-control-expose-headers", "") and got.get("vary") == "origin", (status, got))
        status, got = ask(chatd, "GET", "/healthz", {"origin": page})
        check("and what it is answered", status == 200 and got.get("access-control-allow-origin") == page, (status, got))
        status, got = ask(chatd, "PUT", "/v1/messages", {"origin": page})
        check("a wrong method too", status == 405 and got.get("access-control-allow-origin") == page, (status, got))
        for name, headers in (("another origin", {**preflight, "origin": "https://evil.example"}), ("a longer one", {**preflight, "origin": page + ".evil.example"}),
                              ("one by another scheme", {**preflight, "origin": "http://app.example"}), ("null", {**preflight, "origin": "null"})):
            status, got = ask(chatd, "OPTIONS", "/v1/messages", headers)
            check(name + " is granted nothing", not any(h.startswith("access-control") for h in got), (status, got))
        status, got = ask(chatd, "OPTIONS", "/v1/messages", {**preflight, "access-control-request-headers": "x;y=<z>"})
        check("header names that are none are not echoed", "<" not in got.get("access-control-allow-headers", "<"), got)
    with Chatd(os.path.join(folder, "c2"), "--cors-origin", "*") as chatd:
        status, got = ask(chatd, "OPTIONS", "/v1/messages", preflight)
        check("* is any origin, without cookies", got.get("access-control-allow-origin") == "*" and "access-control-allow-credentials" not in got, got)
    with Chatd(os.path.join(folder, "c3")) as chatd:
        status, got = ask(chatd, "OPTIONS", "/v1/messages", preflight)
        check("without the option OPTIONS is 405", status == 405 and not any(h.startswith("access-control") for h in got), (status, got))
    for bad in ("app.example", "https://app.example/", "https://a.example,https://b.example", "https://*.example"):
        done = subprocess.run([os.path.join(BIN, "chatd"), "serve", "--state", os.path.join(folder, "c4"), "--bind", "127.0.0.1:0", "--cors-origin", bad],
                              capture_output=True, text=True, timeout=10)
        check(f"--cors-origin {bad} is refused with 78", done.returncode == 78 and "--cors-origin is SCHEME" in done.stderr, (done.returncode, done.stderr))


def main():
    folder = tempfile.mkdtemp(prefix="chatd.")
    try:
        with_store(folder)
        command_line(folder)
        tls(folder)
        cors(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(failures)} failed" if failures else "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
