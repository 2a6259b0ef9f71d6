#!/usr/bin/env python3
"""/openapi.json and /docs against the running chatd: every path and method is served, and answers are what their schemas say.

usage: openapi_test.py [test_name…]
"""
import html.parser
import http.client
import json
import re

from harness import Pipeline, run_tests

JSON = "application/json"


def fits(document, schema, value, at="$"):
    """Raises where `value` is not what `schema` says; the keywords that the document uses."""
    known = {"$ref", "type", "const", "enum", "anyOf", "required", "properties", "items", "minItems", "maxItems", "minLength", "pattern", "minimum", "maximum", "example"}
    assert set(schema) <= known, (at, set(schema) - known)
    if "$ref" in schema:
        return fits(document, document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], value, at)
    names = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)}
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        right = any(isinstance(value, names[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds)
        assert right, f"{at}: {value!r} is no {kinds}"
    if "const" in schema:
        assert value == schema["const"], f"{at}: {value!r}"
    if "enum" in schema:
        assert value in schema["enum"], f"{at}: {value!r}"
    if "anyOf" in schema:
        assert any(try_fits(document, each, value) for each in schema["anyOf"]), f"{at}: {value!r}"
    for name in schema.get("required", []):
        assert name in value, f"{at}: no {name} in {value!r}"
    for name, inner in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            fits(document, inner, value[name], f"{at}.{name}")
    if isinstance(value, list):
        assert len(value) >= schema.get("minItems", 0), at
        for index, item in enumerate(value):
            fits(document, schema.get("items", {}), item, f"{at}[{index}]")


def try_fits(document, schema, value):
    try:
        fits(document, schema, value)
        return True
    except AssertionError:
        return False


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def filled(path, ids=("nobody", "nothing")):
    return path.replace("{id}", ids[0]).replace("{message_id}", ids[1])


def answer_fits(document, path, method, status, headers, body):
    responses = document["paths"][path][method.lower()]["responses"]
    response = responses.get(str(status), responses["default"])
    media = headers["content-type"].split(";")[0]
    assert media in response["content"], (path, method, status, media, list(response["content"]))
    if media == JSON:
        fits(document, response["content"][media]["schema"], body, f"{method} {path}")


def begun(pipeline, method, path, body):
    """Like Pipeline.request; a stream, which may never end, is left after its head."""
    connection = http.client.HTTPConnection(pipeline.host, pipeline.port, timeout=10)
    connection.request(method, path, None if body is None else json.dumps(body), pipeline.headers())
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    kind = headers.get("content-type", "")
    raw = b"" if kind.startswith("text/event-stream") else response.read()
    connection.close()
    return response.status, headers, json.loads(raw) if kind.startswith(JSON) else raw


def test_every_operation_is_served_and_nothing_else():
    """Each path and method of the document is known to the server; a method that is not in it is a 405 that lists the same."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        status, headers, document = pipeline.request("GET", "/openapi.json", headers={})
        assert status == 200 and document["openapi"] == "3.1.0" and headers["content-type"] == JSON, (status, headers)
        ids = [operation["operationId"] for _, _, operation in operations(document)]
        assert len(set(ids)) == len(ids) and len(ids) > 30, ids
        for path, method, operation in operations(document):
            assert operation["summary"], f"{method} {path} is not described"
            status, headers, body = begun(pipeline, method, filled(path), None if method in ("GET", "DELETE") else {})
            assert status != 405, f"{method} {path} is 405"
            assert status != 404 or "{" in path, f"{method} {path} is 404"
            assert status < 500, (method, path, status, body)
            answer_fits(document, path, method, status, headers, body)
        for path, methods in document["paths"].items():
            status, headers, _ = pipeline.request("PROPFIND", filled(path))
            assert status == 405, (path, status)
            allowed = {m for m in headers["allow"].split(", ") if m != "HEAD"}
            assert allowed == {m.upper() for m in methods}, (path, headers["allow"])
        named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
        assert named == set(document["components"]["schemas"]), named ^ set(document["components"]["schemas"])


def test_answers_are_what_the_document_says():
    """Real answers of the main routes against their schemas."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        document = pipeline.request("GET", "/openapi.json", headers={})[2]

        def ask(method, path, body=None, ids=("nobody", "nothing"), expect=200):
            status, headers, answer = pipeline.request(method, filled(path, ids), body)
            assert status == expect, (method, path, status, answer)
            answer_fits(document, path, method, status, headers, answer)
            return answer

        ask("GET", "/v1/me")
        ask("GET", "/v1/usage")
        ask("GET", "/readyz")
        ask("GET", "/v1/models")
        ask("GET", "/v1/models/{id}", ids=(pipeline.model, ""))
        ask("POST", "/v1/messages", pipeline.body("Hello", max_tokens=8))
        ask("POST", "/v1/messages", pipeline.body("Hello", max_tokens=8, stream=True))
        ask("POST", "/v1/messages", {}, expect=400)
        ask("POST", "/v1/messages/count_tokens", pipeline.body("Hello"))
        chat = {"model": pipeline.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        ask("POST", "/v1/chat/completions", chat)
        ask("POST", "/v1/chat/completions", {**chat, "stream": True})
        ask("POST", "/v1/chat/completions", {**chat, "n": 2}, expect=400)
        batch = ask("POST", "/v1/messages/batches", {"requests": [{"custom_id": "a", "params": pipeline.body("Hello", max_tokens=4)}]})
        ask("GET", "/v1/messages/batches")
        ask("GET", "/v1/messages/batches/{id}", ids=(batch["id"], ""))
        made = ask("POST", "/v1/conversations", {"title": "t"}, expect=201)
        ask("GET", "/v1/conversations")
        ask("GET", "/v1/conversations/{id}", ids=(made["id"], ""))
        ask("GET", "/v1/conversations/{id}/messages", ids=(made["id"], ""))
        ask("DELETE", "/v1/conversations/{id}", ids=(made["id"], ""))


class Outside(html.parser.HTMLParser):
    """What a page would load or run."""

    def __init__(self):
        super().__init__()
        self.loads, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("script", "img", "iframe", "link", "object", "embed") or "src" in values or any(name.startswith("on") for name in values):
            self.loads.append((tag, values))

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_from_outside():
    """/docs names every path, loads and runs nothing, and its policy forbids to."""
    with Pipeline(PARLEY_SIMULATE="--simulate-speed=1") as pipeline:
        document = pipeline.request("GET", "/openapi.json", headers={})[2]
        status, headers, page = pipeline.request("GET", "/docs", headers={})
        assert status == 200 and headers["content-type"].startswith("text/html"), (status, headers)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "script-src" not in policy and "frame-ancestors 'none'" in policy, policy
        seen = Outside()
        seen.feed(page.decode())
        assert not seen.loads, seen.loads
        missing = [path for path in document["paths"] if path not in seen.text]
        assert not missing, missing


if __name__ == "__main__":
    run_tests(globals())
