"""Run inside a virtual environment that has the official anthropic SDK; PARLEY_URL, PARLEY_KEY, PARLEY_MODEL say where."""

import json
import os
import time

import anthropic

url, key, model = (os.environ[name] for name in ("PARLEY_URL", "PARLEY_KEY", "PARLEY_MODEL"))
client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=60)
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
GREEDY = {"temperature": 0}  # not an argument in the newest SDK: through the body in all of them

message = client.messages.create(model=model, max_tokens=64, messages=QUESTION, extra_body=GREEDY)
assert message.type == "message" and message.role == "assistant" and message.model == model
assert "Paris" in message.content[0].text, message
assert message.stop_reason == "end_turn" and message.usage.output_tokens > 0
assert message._request_id.startswith("req_")
print("create:", message.content[0].text)

with client.messages.stream(model=model, max_tokens=64, messages=QUESTION, extra_body=GREEDY) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == message.content[0].text == final.content[0].text
assert final.stop_reason == "end_turn" and final.usage.output_tokens == message.usage.output_tokens
print("stream:", text)

types = [event.type for event in client.messages.create(model=model, max_tokens=8, messages=QUESTION, stream=True)]
assert types[0] == "message_start" and types[-1] == "message_stop", types

counted = client.messages.count_tokens(model=model, messages=QUESTION)
assert counted.input_tokens == message.usage.input_tokens

turns = [*QUESTION, {"role": "assistant", "content": [{"type": "text", "text": text}]}, {"role": "user", "content": "Thanks."}]
again = client.messages.create(model=model, max_tokens=16, messages=turns, system="You are polite.", stop_sequences=["THE END"], metadata={"user_id": "u1"})
assert again.usage.input_tokens > message.usage.input_tokens

listed = [entry.id for entry in client.models.list(limit=100)]
assert model in listed, listed
assert client.models.retrieve(model).id == model


def raises(kind, status, **arguments):
    try:
        (arguments.pop("using", client)).messages.create(**{"model": model, "max_tokens": 8, "messages": QUESTION, **arguments})
    except kind as error:
        assert error.status_code == status, error
        assert error.body["type"] == "error" and error.request_id.startswith("req_")
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


raises(anthropic.NotFoundError, 404, model="nobody")
raises(anthropic.BadRequestError, 400, messages=[])
raises(anthropic.AuthenticationError, 401, using=client.with_options(api_key="pk_wrong"))
long = raises(anthropic.BadRequestError, 400, messages=[{"role": "user", "content": "word " * 12000}])
assert "prompt is too long: " in long and " maximum" in long, long
# Calls of tools, forced: a small model calls none by itself that can be relied on.
tools = [{"name": "get_weather", "description": "Weather of a city.",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 40}}, "required": ["city"]}},
         {"name": "set_lamp", "input_schema": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}}]
turn = [{"role": "user", "content": "How warm is it in Bern?"}]
choice = {"type": "tool", "name": "get_weather"}
with client.messages.stream(model=model, max_tokens=96, messages=turn, tools=tools, tool_choice=choice, extra_body=GREEDY) as stream:
    pieces = [event.partial_json for event in stream if event.type == "input_json"]
    streamed = stream.get_final_message()
assert streamed.stop_reason == "tool_use" and [b.type for b in streamed.content] == ["tool_use"], streamed
call = streamed.content[0]
assert call.id.startswith("toolu_") and call.name == "get_weather" and isinstance(call.input["city"], str), call
assert len(pieces) > 1 and json.loads("".join(pieces)) == call.input, pieces
plain = client.messages.create(model=model, max_tokens=96, messages=turn, tools=tools, tool_choice=choice, extra_body=GREEDY)
assert plain.stop_reason == "tool_use" and plain.content[0].input == call.input and plain.content[0].id != call.id, plain
# The loop: the call goes back as the SDK holds it, with its result, and so does the next.
turn += [{"role": "assistant", "content": streamed.content},
         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}]}]
second = client.messages.create(model=model, max_tokens=96, messages=turn, tools=tools, tool_choice={"type": "any"})
assert second.stop_reason == "tool_use" and len(second.content) == 1 and second.content[0].name in ("get_weather", "set_lamp"), second
turn += [{"role": "assistant", "content": second.content},
         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": second.content[0].id, "content": [{"type": "text", "text": "done"}], "is_error": True}]}]
told = client.messages.create(model=model, max_tokens=8, messages=turn, tools=tools, tool_choice={"type": "none"})
assert [b.type for b in told.content] in (["text"], []) and told.usage.input_tokens == client.messages.count_tokens(
    model=model, messages=turn, tools=tools, tool_choice={"type": "none"}).input_tokens, told
assert "max_tokens" in raises(anthropic.BadRequestError, 400, max_tokens=2, tools=tools, tool_choice=choice)
raises(anthropic.BadRequestError, 400, messages=turn[:2], tools=tools)
# Batches: what is right in one succeeds, what is wrong in it is an entry's own error.
batches = client.messages.batches
batch = batches.create(requests=[{"custom_id": "paris", "params": {"model": model, "max_tokens": 32, "messages": QUESTION}},
                                 {"custom_id": "nobody", "params": {"model": "nobody", "max_tokens": 8, "messages": QUESTION}}])
assert batch.type == "message_batch" and batch.request_counts.processing == 2 and batch.results_url is None, batch
deadline = time.monotonic() + 60
while (batch := batches.retrieve(batch.id)).processing_status != "ended":
    assert batch.request_counts.processing == 2 and time.monotonic() < deadline, batch
    time.sleep(0.1)
assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1) and batch.ended_at is not None, batch
results = {line.custom_id: line.result for line in batches.results(batch.id)}
assert results["paris"].message.usage.service_tier == "batch" and results["paris"].message.content[0].text, results
assert results["nobody"].error.error.type == "not_found_error", results
assert batches.cancel(batch.id).processing_status == "ended"
others = [batches.create(requests=[{"custom_id": "a", "params": {"model": model, "max_tokens": 1, "messages": QUESTION}}]).id for _ in range(2)]
assert [each.id for each in batches.list(limit=1)][:3] == [*reversed(others), batch.id]
assert batches.delete(batch.id).type == "message_batch_deleted"
try:
    batches.retrieve(batch.id)
    raise AssertionError("a deleted batch is found")
except anthropic.NotFoundError as error:
    assert error.body["error"]["type"] == "not_found_error", error.body
print(f"anthropic {anthropic.__version__}: all good")
