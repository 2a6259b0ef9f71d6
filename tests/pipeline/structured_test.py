#!/usr/bin/env python3
"""Answers held to a JSON Schema, by the real model: what comes out parses and validates, however little room there is.

usage: structured_test.py
"""
import json
import os
import re
import subprocess
import sys

from harness import BIN, MODEL, Pipeline, check, failures, need_model

need_model()


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_type(value, name):
    if name in ("integer", "number"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (name == "number" or value == int(value))
    return isinstance(value, TYPES[name])


def wrong(schema, value, root):
    """What of `value` does not fit, or ''. Written from the specification, for the keywords used below."""
    if schema is True:
        return ""
    if schema is False:
        return f"{value!r}: nothing is allowed here"
    known = {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs", "pattern",
             "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "description"}
    assert set(schema) <= known, schema
    if "$ref" in schema:
        at = root
        for part in schema["$ref"].lstrip("#").strip("/").split("/"):
            at = at[part] if part else at
        return wrong(at, value, root)
    if "type" in schema and not any(is_type(value, t) for t in ([schema["type"]] if isinstance(schema["type"], str) else schema["type"])):
        return f"{value!r} is no {schema['type']}"
    if "enum" in schema and value not in schema["enum"] or "const" in schema and value != schema["const"]:
        return f"{value!r} is not among the values"
    if "anyOf" in schema and all(wrong(s, value, root) for s in schema["anyOf"]):
        return f"{value!r} fits no branch"
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return f"{value!r}: length"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"{value!r}: pattern"
    if is_type(value, "number"):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return f"{value!r}: bounds"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"] or "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            return f"{value!r}: exclusive bounds"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{value!r}: items"
        for item in value:
            if why := wrong(schema.get("items", True), item, root):
                return why
    if isinstance(value, dict):
        named = schema.get("properties", {})
        for name in schema.get("required", []):
            if name not in value:
                return f"{name} is missing"
        for name, item in value.items():
            if why := wrong(named.get(name, schema.get("additionalProperties", True)), item, root):
                return f"{name}: {why}"
    return ""


def closed(required=None, **properties):
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required, "additionalProperties": False}


TEXT = {"type": "string"}
SCHEMAS = {
    "nested": closed(title=TEXT, place=closed(city=TEXT, at=closed(x={"type": "number"}, y={"type": "number"}))),
    "enum": closed(mood={"enum": ["glad", "sad", 3, None, {"a": [1]}]}, kind={"const": "report \"é\""}),
    "arrays": closed(rivers={"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4}, flags={"type": "array", "items": {"type": "boolean"}, "maxItems": 3}),
    "anyOf": {"anyOf": [closed(error={"type": "string", "minLength": 1}), closed(result={"type": ["integer", "null"]})]},
    "recursive": {"$ref": "#/$defs/tree", "$defs": {"tree": closed(["name"], name={"type": "string", "maxLength": 12},
                                                              children={"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2})}},
    "pattern": closed(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}, mail={"type": "string", "pattern": "^[a-z]+@[a-z]+\\.(org|net)$"}),
    "bounds": closed(age={"type": "integer", "minimum": -5, "maximum": 120}, share={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "lengths": closed(short={"type": "string", "minLength": 3, "maxLength": 5}, free={"type": "string", "minLength": 30}),
    "optional": closed(["b"], a=TEXT, b={"type": "integer"}, c={"type": "boolean"}),
    "anything": {"type": "object"},
}


def fmt(schema):
    return {"format": {"type": "json_schema", "schema": schema}}


def run(asks, *options):
    """{id: (END meta, text, stop reason)} of `infer-worker run`."""
    lines = "".join(json.dumps({"parley": 1, "verb": "ASK", "id": i, "meta": {"seed": 11}, "body": b}) + "\n" for i, b in asks.items())
    done = subprocess.run([os.path.join(BIN, "infer-worker"), "run", "--model", MODEL, *options], input=lines, capture_output=True, text=True, timeout=500)
    out = {i: [None, "", None] for i in asks}
    for line in done.stdout.splitlines():
        m = json.loads(line)
        if m["verb"] == "END":
            out[m["id"]][0] = m["meta"]
        elif m["verb"] == "EVENT" and m["body"]["type"] == "content_block_delta":
            out[m["id"]][1] += m["body"]["delta"].get("text", "")
        elif m["verb"] == "EVENT" and m["body"]["type"] == "message_delta":
            out[m["id"]][2] = m["body"]["delta"]["stop_reason"]
    return out


def ask(schema, **members):
    return {"model": "m", "max_tokens": 120, "temperature": 0, "output_config": fmt(schema),
            "messages": [{"role": "user", "content": "Tell me about a river, as JSON."}], **members}


def verdict(name, text):
    try:
        return wrong(SCHEMAS[name], json.loads(text), SCHEMAS[name])
    except ValueError as error:
        return f"{text!r} does not parse: {error}"


# The shortest that fits, by the worker's own word: with one token less it refuses.
floor = {}
for name, (end, _, _) in run({n: ask(s, max_tokens=1) for n, s in SCHEMAS.items()}).items():
    found = re.fullmatch(r"max_tokens: 1 are left for the answer, and the shortest that fits the grammar may need (\d+)", end.get("message", ""))
    if name == "anything":  # {} is one token
        check("anything: max_tokens 1 is enough", end["status"] == "ok", end)
    else:
        check(f"{name}: max_tokens 1 is refused", end["status"] == "invalid_request_error" and found, end)
    floor[name] = int(found[1]) if found else 1
less = run({n: ask(s, max_tokens=floor[n] - 1) for n, s in SCHEMAS.items() if floor[n] > 2})
check("one token below the shortest is refused", all(e["status"] == "invalid_request_error" for e, _, _ in less.values()), less)

asks = {}
for name, schema in SCHEMAS.items():
    for temperature in (0, 1):
        for room in (0, 1, 3, 8, 25, 120):
            asks[f"{name}/t{temperature}/+{room}"] = ask(schema, temperature=temperature, max_tokens=floor[name] + room)
got = run(asks, "--slots-max", "16")
for name in SCHEMAS:
    mine = {i: v for i, v in got.items() if i.startswith(name + "/")}
    bad = {i: (v, verdict(name, v[1])) for i, v in mine.items() if not v[0] or v[0]["status"] != "ok" or verdict(name, v[1]) or v[2] != "end_turn"}
    check(f"{name}: parses, validates and ends its turn, with 0 to 120 tokens to spare, at both temperatures", len(mine) == 12 and not bad, bad)
alone = run({i: asks[i] for i in list(asks)[4::12]}, "--slots-max", "1")
check("alone or among 16, the text is the same", len(alone) > 5 and all(alone[i][1] == got[i][1] for i in alone), alone)

with Pipeline() as pipeline:
    for name in ("nested", "arrays", "pattern"):
        status, _, answer = pipeline.message("Name a river, as JSON.", output_config=fmt(SCHEMAS[name]))
        text = "".join(b.get("text", "") for b in answer.get("content", []))
        check(f"{name}: whole from the API", status == 200 and answer["stop_reason"] == "end_turn" and not verdict(name, text), (status, answer))
        stream = pipeline.stream("/v1/messages", pipeline.body("Name a river, as JSON.", stream=True, output_format=fmt(SCHEMAS[name])["format"]))
        check(f"{name}: streamed, the same", stream.end == "done" and stream.text == text, (stream.end, stream.error, stream.text, text))
    bad = {"type": "object", "properties": {"a": {"type": "string", "contentEncoding": "base64", "not": {}}}}
    for stream in (False, True):
        status, headers, answer = pipeline.request("POST", "/v1/messages", pipeline.body("Hi", stream=stream, output_config=fmt(bad)))
        check(f"an unsupported keyword is a 400 that names it (stream {stream})",
              status == 400 and answer["error"]["type"] == "invalid_request_error"
              and re.match(r"output_config\.format\.schema: #/properties/a: '(not|contentEncoding)' ", answer["error"]["message"]), (status, headers, answer))
        status, _, answer = pipeline.request("POST", "/v1/messages", pipeline.body("Hi", stream=stream, max_tokens=3, output_config=fmt(SCHEMAS["nested"])))
        check(f"max_tokens below the shortest answer is a 400 (stream {stream})", status == 400 and answer["error"]["message"].startswith("max_tokens: "), (status, answer))
    status, _, answer = pipeline.message("Hi", stop_sequences=["}"], output_config=fmt(SCHEMAS["nested"]))
    check("stop sequences beside a schema are a 400", status == 400 and answer["error"]["message"].startswith("stop_sequences: "), (status, answer))

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
