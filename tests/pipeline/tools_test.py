#!/usr/bin/env python3
"""Tools beside a request, by the real model: answered in text, counted as they are read, refused in the contract's words.

usage: tools_test.py
"""
import os
import sys

from harness import Pipeline, skip

CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
MODEL = os.environ.get("PARLEY_MODEL") or os.path.join(CACHE, "parley/models/SmolLM2-135M-Instruct.Q4_1.gguf")
if not os.path.isfile(MODEL):
    skip("no model at " + MODEL)
failures = []


def check(sentence, truth, seen=None):
    print(("ok   " if truth else "FAIL ") + sentence + ("" if truth else f": saw {seen!r}"), flush=True)
    if not truth:
        failures.append(sentence)


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
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        status, _, answer = ask(tool_choice=choice)
        check(f"a promise of a call is refused ({choice['type']})", status == 400 and answer["error"]["message"].startswith("tool_choice.type: "), (status, answer))

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
