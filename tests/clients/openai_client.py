"""Run inside a virtual environment that has the official openai SDK; PARLEY_URL, PARLEY_KEY, PARLEY_MODEL say where."""

import json
import os

import openai

url, key, model = (os.environ[name] for name in ("PARLEY_URL", "PARLEY_KEY", "PARLEY_MODEL"))
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=60)
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
chat = client.chat.completions

one = chat.create(model=model, messages=QUESTION, max_completion_tokens=64, temperature=0)
assert one.object == "chat.completion" and one.id.startswith("chatcmpl-") and one.model == model, one
assert "Paris" in one.choices[0].message.content and one.choices[0].finish_reason == "stop", one
assert one.choices[0].message.role == "assistant" and one._request_id.startswith("req_")
assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens
assert 0 <= one.usage.prompt_tokens_details.cached_tokens <= one.usage.prompt_tokens
print("create:", one.choices[0].message.content)

chunks = list(chat.create(model=model, messages=QUESTION, max_tokens=64, temperature=0, stream=True, stream_options={"include_usage": True}))
assert {(c.id, c.created, c.model, c.object) for c in chunks} == {(chunks[0].id, chunks[0].created, model, "chat.completion.chunk")}
assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
assert text == one.choices[0].message.content, text
assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == one.usage.completion_tokens
assert all(c.usage is None for c in chunks[:-1])
print("stream:", text)

raw = client.chat.completions.with_raw_response.create(model=model, messages=QUESTION, max_tokens=2, stream=True)
assert raw.headers["content-type"].startswith("text/event-stream")
lines = [line for line in raw.http_response.iter_lines() if line]
assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]", lines
assert json.loads(lines[-2][6:])["choices"][0]["finish_reason"] == "length", lines

with client.chat.completions.stream(model=model, messages=QUESTION, max_tokens=64, temperature=0) as stream:
    for event in stream:
        pass
    assert stream.get_final_completion().choices[0].message.content == text

plain = {"model": model, "temperature": 0, "max_tokens": 16}
stopped = chat.create(**plain, messages=QUESTION, stop=[" of", "nothing"])
assert stopped.choices[0].finish_reason == "stop" and " of" not in stopped.choices[0].message.content, stopped
line = chat.create(model=model, temperature=0, max_tokens=64, messages=[{"role": "user", "content": "Write two lines about cats."}], stop="\n")
assert "\n" not in line.choices[0].message.content, line
seeded = [chat.create(model=model, messages=QUESTION, max_tokens=24, temperature=1.8, seed=7, presence_penalty=0.5, frequency_penalty=0.5).choices[0].message.content for _ in range(2)]
assert seeded[0] == seeded[1], seeded
others = {chat.create(model=model, messages=QUESTION, max_tokens=24, temperature=1.8, seed=seed).choices[0].message.content for seed in range(4)}
assert len(others) > 1, others
assert chat.create(**plain, messages=[{"role": "user", "content": ""}]).usage.prompt_tokens > 0
turns = [{"role": "developer", "content": "You are polite."}, *QUESTION, {"role": "assistant", "content": text}]
again = chat.create(**plain, messages=turns, user="u1", extra_body={"chat_id": "x", "keep_alive": 1})
assert again.usage.prompt_tokens > one.usage.prompt_tokens, again

shape = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"], "additionalProperties": False}
formed = chat.create(model=model, temperature=0, max_tokens=64, messages=QUESTION, response_format={"type": "json_schema", "json_schema": {"name": "c", "strict": True, "schema": shape}})
assert list(json.loads(formed.choices[0].message.content)) == ["city"], formed
loose = chat.create(model=model, temperature=0, max_tokens=200, messages=[{"role": "user", "content": "Reply with the JSON object {\"ok\": true} and nothing else."}], response_format={"type": "json_object"})
assert loose.choices[0].finish_reason == "length" or isinstance(json.loads(loose.choices[0].message.content), dict), loose

# Calls of tools, forced: a small model calls none by itself that can be relied on.
weather = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"], "additionalProperties": False}}}
clock = {"type": "function", "function": {"name": "clock"}}
ask = {"model": model, "temperature": 0, "max_tokens": 96, "tools": [weather]}
turn = [{"role": "user", "content": "How warm is it in Bern?"}]
named = {"type": "function", "function": {"name": "get_weather"}}
called = chat.create(**ask, messages=turn, tool_choice=named).choices[0]
assert called.finish_reason == "tool_calls" and called.message.content is None, called
call = called.message.tool_calls[0]
assert call.id.startswith("call_") and call.function.name == "get_weather" and isinstance(json.loads(call.function.arguments)["city"], str), call
with chat.stream(**ask, messages=turn, tool_choice="required") as stream:
    for event in stream:
        pass
    streamed = stream.get_final_completion().choices[0]
assert streamed.finish_reason == "tool_calls" and json.loads(streamed.message.tool_calls[0].function.arguments) == json.loads(call.function.arguments), streamed
turn += [called.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}]
told = chat.create(**{**ask, "max_tokens": 8}, messages=turn, tool_choice="none")
assert told.choices[0].message.content and not told.choices[0].message.tool_calls, told
bare = chat.create(**{**ask, "tools": [clock]}, messages=turn[:1], tool_choice="required", parallel_tool_calls=False).choices[0]
assert [c.function.name for c in bare.message.tool_calls] == ["clock"] and isinstance(json.loads(bare.message.tool_calls[0].function.arguments), dict), bare

listed = [entry.id for entry in client.models.list()]
assert model in listed, listed
assert client.models.retrieve(model).owned_by == "chatd"
try:
    client.models.retrieve("nobody")
    raise AssertionError("no NotFoundError")
except openai.NotFoundError as error:
    assert error.code == "model_not_found" and error.param == "model", error.body


def raises(kind, code, param, using=client, **arguments):
    try:
        using.chat.completions.create(**{"model": model, "max_tokens": 8, "messages": QUESTION, **arguments})
    except kind as error:
        assert error.code == code and error.param == param and error.request_id.startswith("req_"), (error.body, error.request_id)
        return error
    raise AssertionError(f"no {kind.__name__}")


raises(openai.NotFoundError, "model_not_found", "model", model="nobody")
raises(openai.BadRequestError, None, "messages", messages=[])
raises(openai.BadRequestError, None, "temperature", temperature=3)
raises(openai.BadRequestError, None, "n", n=2)
raises(openai.BadRequestError, None, "messages.0.content.0", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])
raises(openai.AuthenticationError, "invalid_api_key", None, using=client.with_options(api_key="pk_wrong"))
raises(openai.BadRequestError, "context_length_exceeded", "messages", messages=[{"role": "user", "content": "word " * 12000}])
raises(openai.BadRequestError, None, "response_format.json_schema.schema", response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": {"type": "nothing"}}})
print(f"openai {openai.__version__}: all good")
