"""Gemma 3 270M, a base model of another architecture, through the whole pipeline: it completes text, streams the same, and reuses its prefix."""

import os
import subprocess

import harness

GEMMA = os.path.join(os.path.dirname(harness.MODEL), "gemma3-270m-q4_k_m.gguf")
if not os.path.isfile(GEMMA):
    harness.skip("no Gemma 3 270M: bash examples/fetch_gemma3.sh fetches it")
TEXT = "The capital of France is"


def test_it_completes_streams_and_reuses():
    with harness.Pipeline(PARLEY_MODEL=GEMMA, INFER_WORKER_CHAT_TEMPLATE="raw") as p:
        body = p.body(TEXT, max_tokens=12)
        status, _, whole = p.request("POST", "/v1/messages", body)
        assert status == 200, whole
        text = whole["content"][0]["text"]
        assert "the capital of the country of France" in text, text
        streamed = p.stream("/v1/messages", {**body, "stream": True})
        assert streamed.end == "done" and streamed.text == text, (streamed.text, text)
        long = {**body, "max_tokens": 4, "system": [{"type": "text", "text": "A list of facts. " * 120, "cache_control": {"type": "ephemeral"}}]}
        first, second = (p.request("POST", "/v1/messages", long)[2]["usage"] for _ in range(2))
        assert first["cache_creation_input_tokens"] > 400 and second["cache_read_input_tokens"] > 400, (first, second)
        status, _, counted = p.request("POST", "/v1/messages/count_tokens", {"model": p.model, "messages": body["messages"]})
        assert status == 200 and counted["input_tokens"] == whole["usage"]["input_tokens"], (counted, whole["usage"])
        models = p.request("GET", "/v1/models")[2]["data"]
        assert any(m["max_input_tokens"] == 32768 for m in models), models


def test_a_base_model_without_a_template_is_refused_in_words():
    done = subprocess.run([os.path.join(harness.BIN, "infer-worker"), "run", "--model", GEMMA], input="", capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "--chat-template" in done.stderr, (done.returncode, done.stderr)


if __name__ == "__main__":
    harness.run_tests(globals())
