#!/usr/bin/env python3
"""Tools beside a request, by the real model: calls forced by grammar, counted as they are read, refused in the contract's words.

usage: tools_test.py
"""
import json
import sys

from harness import Pipeline, check, failures, need_model

need_model()


TOOLS = [{"name": "get_weather", "description": "Weather of a city.",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]
HISTORY = [{"role": "user", "content": "How warm is it in Bern?"},
           {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Bern"}}]},
           {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "21 degrees"}]}]

with Pipeline() as pipeline:
    def ask(path="/v1/messages", **more):
        return pipeline.request("POST", path, {"model": pipeline.model, "max_tokens": 8, "temperature": 0, "messages": HISTORY, "tools": TOOLS, **more})

    for choice in ("auto", "none"):
        status, _, answer = ask(tool_choice={"type": choice})
        check(f"a result is answered under {choice}, in text alone", status == 200 and [b["type"] for b in answer["content"]] == ["text"]
              and answer["stop_reason"] in ("end_turn", "max_tokens"), (status, answer))
        _, _, count = ask("/v1/messages/count_tokens", tool_choice={"type": choice})
        usage = answer.get("usage", {})
        check("count_tokens says what usage says", count.get("input_tokens") == usage.get("input_tokens"), (count, usage))
    _, _, bare = ask("/v1/messages/count_tokens", tools=[])
    check("tools are part of the prompt", bare["input_tokens"] < count["input_tokens"], (bare, count))
    status, _, answer = ask(messages=HISTORY[:2])
    check("a call without its result is a 400 in the contract's words", status == 400 and answer["error"]["message"] ==
          "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. "
          "Each `tool_use` block must have a corresponding `tool_result` block in the next message.", (status, answer))

    def calls(answer):
        return [b for b in answer.get("content", []) if b["type"] == "tool_use"]

    MANY = [TOOLS[0],
            {"name": "set-lamp", "description": "Switches a lamp.", "strict": True,
             "input_schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": False,
                              "properties": {"room": {"enum": ["kitchen", "hall"]}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
                              "required": ["room", "level"]}},
            {"name": "nothing", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}]

    def fits(call):
        given = call["input"]
        if call["name"] == "get_weather":
            return isinstance(given.get("city"), str)
        if call["name"] == "set-lamp":
            return set(given) == {"room", "level"} and given["room"] in ("kitchen", "hall") and given["level"] in range(10)
        return call["name"] == "nothing" and given == {}

    ASK = [{"role": "user", "content": "Switch on the lamp of the kitchen, and say how warm it is in Bern."}]
    for choice, names in (({"type": "any"}, {t["name"] for t in MANY}), ({"type": "any", "disable_parallel_tool_use": True}, {t["name"] for t in MANY}),
                          *(({"type": "tool", "name": t["name"]}, {t["name"]}) for t in MANY)):
        for more in ({"temperature": 0, "max_tokens": 96}, {"temperature": 1, "max_tokens": 48, "stop_sequences": ["{", "name"]}):
            status, _, answer = ask(messages=ASK, tools=MANY, tool_choice=choice, **more)
            made = calls(answer)
            check(f"{choice} with {more} is exactly one call that fits its schema",
                  status == 200 and len(answer["content"]) == len(made) == 1 and made[0]["name"] in names and fits(made[0])
                  and made[0]["id"].startswith("toolu_") and answer["stop_reason"] == "tool_use", (status, answer))
    choice = {"type": "tool", "name": "set-lamp"}
    status, _, whole = ask(messages=ASK, tools=MANY, tool_choice=choice, max_tokens=96)
    events = pipeline.stream("/v1/messages", {"model": pipeline.model, "max_tokens": 96, "temperature": 0, "messages": ASK, "tools": MANY,
                                              "tool_choice": choice, "stream": True}).events
    events = [(event["type"], event) for _, event in events]
    kinds = [name for name, _ in events if name != "ping"]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    starts = [data["content_block"] for name, data in events if name == "content_block_start"]
    check("a streamed call is one block of input_json_deltas in the one legal order",
          kinds[:2] == ["message_start", "content_block_start"] and kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
          and set(kinds[2:-3]) == {"content_block_delta"} and {d["type"] for d in deltas} == {"input_json_delta"}, kinds)
    check("its start has an id, the name and an empty input", len(starts) == 1 and starts[0]["type"] == "tool_use" and starts[0]["input"] == {}
          and starts[0]["id"].startswith("toolu_") and starts[0]["name"] == "set-lamp", starts)
    check("the input comes in pieces, not at the end", len(deltas) > 3, deltas)
    check("the pieces are the input of the same answer unstreamed",
          json.loads("".join(d["partial_json"] for d in deltas)) == whole["content"][0]["input"], (deltas, whole))
    check("it stops for the call", [d["delta"]["stop_reason"] for n, d in events if n == "message_delta"] == ["tool_use"], events[-2:])

    made = calls(whole)[0]
    LOOP = ASK + [{"role": "assistant", "content": whole["content"]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": made["id"], "content": [
                      {"type": "text", "text": "done"}, {"type": "document", "title": "log", "source": {"type": "text", "media_type": "text/plain", "data": "lamp on"}}]}]}]
    status, _, answer = ask(messages=LOOP, tools=MANY)
    check("the call goes back with its result, a document in it, and is answered", status == 200 and answer["content"], (status, answer))
    _, _, count = ask("/v1/messages/count_tokens", messages=LOOP, tools=MANY)
    check("and is counted as it is read", count["input_tokens"] == answer["usage"]["input_tokens"], (count, answer))

    status, _, answer = ask(messages=ASK, tools=MANY, tool_choice=choice, max_tokens=3)
    check("max_tokens below the shortest call is a 400 that says so", status == 400 and answer["error"]["message"].startswith("max_tokens: "), (status, answer))
    odd = [TOOLS[0], {"name": "odd", "input_schema": {"type": "object", "properties": {"x": {"type": "string", "contentEncoding": "base64"}}}}]
    status, _, answer = ask(messages=ASK, tools=odd, tool_choice={"type": "any"})
    check("a keyword that cannot be held is a 400 with its path",
          status == 400 and answer["error"]["message"].startswith("tools.1.input_schema: #/properties/x: 'contentEncoding'"), (status, answer))
    status, _, answer = ask(messages=ASK, tools=odd, tool_choice={"type": "tool", "name": "get_weather"}, max_tokens=64)
    check("another tool's schema is no one's concern", status == 200 and calls(answer), (status, answer))
    status, _, answer = ask(messages=ASK, tools=odd)
    check("nor is it where nothing is forced", status == 200, (status, answer))
    status, _, answer = ask(tool_choice={"type": "tool", "name": "other"})
    check("a tool that is not there cannot be chosen", status == 400 and answer["error"]["message"].startswith("tool_choice.name: "), (status, answer))

    # auto: after three calls in the history even a small model makes the fourth.
    SHOTS = []
    for i, (city, degrees) in enumerate((("Bern", 21), ("Paris", 25), ("Rome", 30))):
        SHOTS += [{"role": "user", "content": f"How warm is it in {city}?"},
                  {"role": "assistant", "content": [{"type": "tool_use", "id": f"t{i}", "name": "get_weather", "input": {"city": city}}]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"t{i}", "content": f"{degrees} degrees"}]},
                  {"role": "assistant", "content": f"It is {degrees} degrees in {city}."}]
    SHOTS.append({"role": "user", "content": "How warm is it in Madrid?"})
    status, _, whole = ask(messages=SHOTS, max_tokens=64)
    check("auto: the model calls the tool by itself", status == 200 and [(b["name"], b["input"]) for b in calls(whole)] == [("get_weather", {"city": "Madrid"})]
          and whole["stop_reason"] == "tool_use", (status, whole))
    check("and no markup is left in a text", "tool_call" not in json.dumps([b for b in whole["content"] if b["type"] == "text"]), whole)
    stream = pipeline.stream("/v1/messages", {"model": pipeline.model, "max_tokens": 64, "temperature": 0, "messages": SHOTS, "tools": TOOLS, "stream": True})
    pieces = [event["delta"] for _, event in stream.events if event["type"] == "content_block_delta"]
    check("streamed, it is the same call", "".join(d.get("partial_json", "") for d in pieces).replace(" ", "") == '{"city":"Madrid"}'
          and stream.text == "".join(b.get("text", "") for b in whole["content"]) and stream.stop_reason() == "tool_use", (pieces, whole))
    status, _, single = ask(messages=SHOTS, max_tokens=64, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    check("where one call is allowed nothing is computed after it", [b["input"] for b in calls(single)] == [{"city": "Madrid"}] and single["stop_reason"] == "tool_use"
          and single["usage"]["output_tokens"] < whole["usage"]["output_tokens"], (single, whole))
    STRICT = [{**TOOLS[0], "strict": True, "input_schema": {**TOOLS[0]["input_schema"], "properties": {"city": {"enum": ["Bern", "Lima"]}}, "additionalProperties": False}}]
    status, _, strict = ask(messages=SHOTS, max_tokens=64, tools=STRICT)
    check("auto, strict: the model calls, and its input validates whatever it had in mind", status == 200 and calls(strict)
          and all(b["input"].get("city") in ("Bern", "Lima") and len(b["input"]) == 1 for b in calls(strict)), (status, strict))
    status, _, refused = ask(messages=SHOTS, tools=[{**odd[1], "strict": True}])
    check("a strict tool with a keyword that cannot be held is a 400 with its path", status == 400
          and refused["error"]["message"].startswith("tools.0.input_schema: #/properties/x: 'contentEncoding'"), (status, refused))
    status, _, short = ask(messages=SHOTS, max_tokens=12)
    check("a call that max_tokens cuts is left out", status == 200 and not calls(short) and "tool_call" not in json.dumps(short["content"])
          and short["stop_reason"] == "max_tokens", (status, short))
    status, _, none = ask(messages=SHOTS, max_tokens=64, tool_choice={"type": "none"})
    check("under none there is no call", status == 200 and not calls(none) and none["stop_reason"] != "tool_use", (status, none))

    # A stage dies in mid-call: the input goes on where it stood, the same to the byte.
    LIST = [{"name": "keep", "input_schema": {"type": "object", "additionalProperties": False, "required": ["numbers"], "properties": {
        "numbers": {"type": "array", "minItems": 60, "maxItems": 60, "items": {"type": "integer", "minimum": 0, "maximum": 999}}}}}]
    LONG = {"model": pipeline.model, "max_tokens": 512, "temperature": 0, "stream": True, "messages": [{"role": "user", "content": "Keep the numbers from 100 on."}],
            "tools": LIST, "tool_choice": {"type": "any"}}

    def said(stream):
        return "".join(event["delta"]["partial_json"] for _, event in stream.events if event["type"] == "content_block_delta")

    uncut = pipeline.stream("/v1/messages", LONG)
    check("a long call comes whole", uncut.end == "done" and len(json.loads(said(uncut))["numbers"]) == 60, (uncut.end, uncut.error))
    for victim in ("safety-filter", "infer-worker-0"):
        killed = []

        def kill(stream, event):
            if event["type"] == "content_block_delta" and len(stream.events) > 12 and not killed:
                killed.append(len(stream.events))
                pipeline.kill(victim)

        cut = pipeline.stream("/v1/messages", LONG, on_event=kill)
        check(f"kill -9 of {victim} in mid-call costs a pause, not a byte", killed and cut.end == "done" and said(cut) == said(uncut)
              and cut.stop_reason() == "tool_use" and cut.types().count("content_block_start") == 1, (killed, cut.end, cut.error, said(cut)[-80:]))
        pipeline.wait_ready()

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
