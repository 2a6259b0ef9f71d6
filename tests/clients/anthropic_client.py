"""Run inside a virtual environment that has the official anthropic SDK; PARLEY_URL, PARLEY_KEY, PARLEY_MODEL say where."""

import os

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
tools = [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
# Tools are shown to the model, which answers in text; a call cannot be promised yet.
told = client.messages.create(model=model, max_tokens=8, messages=QUESTION, tools=tools)
assert told.content[0].type == "text" and told.usage.input_tokens > 0, told
raises(anthropic.BadRequestError, 400, tools=tools, tool_choice={"type": "any"})
print(f"anthropic {anthropic.__version__}: all good")
