#!/usr/bin/env python3
"""infer-worker from a shell: run as a filter of JSON Lines, its exit statuses, bench and its fields.

usage: worker_run_test.py [BIN_DIR]   (default: build/bin of this checkout)
"""
import json
import math
import os
import subprocess
import sys
import tempfile

import harness
from harness import MODEL, ROOT, check, failures, need_model

BIN = sys.argv[1] if len(sys.argv) > 1 else harness.BIN
WORKER = os.path.join(BIN, "infer-worker")
need_model()


def worker(*args, stdin="", env=None):
    return subprocess.run([WORKER, *args], input=stdin, capture_output=True, text=True, timeout=300, env=dict(os.environ, **(env or {})))


def ask(text, **members):
    body = {"model": "m", "max_tokens": 16, "temperature": 0, "messages": [{"role": "user", "content": text}]}
    return json.dumps(dict(body, **members))


def envelope(request_id, text, meta=None, **members):
    return json.dumps({"parley": 1, "verb": "ASK", "id": request_id, "meta": meta or {}, "body": json.loads(ask(text, **members))})


def answers(output):
    """{id: [lines]} in order."""
    out = {}
    for line in output.splitlines():
        message = json.loads(line)
        out.setdefault(message["id"], []).append(message)
    return out


def text_of(lines):
    return "".join(m["body"]["delta"].get("text", "") for m in lines
                   if m["verb"] == "EVENT" and m["body"]["type"] == "content_block_delta")


questions = ["Why is the sky blue?", "Name three rivers.", "What is rain?", "Write a poem."]
lines = [envelope(f"q{i}", q) for i, q in enumerate(questions)]
got = worker("run", "--model", MODEL, stdin="\n".join(lines) + "\n")
check("good requests end with 0", got.returncode == 0, got.stderr)
together = answers(got.stdout)
check("every request is there, and no other", sorted(together) == ["q0", "q1", "q2", "q3"], sorted(together))
for name, answer in together.items():
    verbs = [m["verb"] for m in answer]
    check(f"{name}: the ASK, its events, one END", verbs[0] == "ASK" and verbs[-1] == "END" and set(verbs[1:-1]) == {"EVENT"}, verbs)
    events = [m for m in answer if m["verb"] == "EVENT"]
    check(f"{name}: numbered without gaps", [m["meta"]["seq"] for m in events] == list(range(len(events))))
    check(f"{name}: message_start first, message_stop last",
          events[0]["body"]["type"] == "message_start" and events[-1]["body"]["type"] == "message_stop")
    ids = sum((m["meta"].get("ids", []) for m in events), [])
    usage = answer[-1]["meta"]["usage"]
    check(f"{name}: as many ids as output tokens, but for the end of turn", usage["output_tokens"] - len(ids) in (0, 1), (usage, len(ids)))

one = worker("run", "--model", MODEL, "--slots-max", "1", stdin="\n".join(lines) + "\n")
alone = answers(one.stdout)
check("with one slot the answers come one after the other",
      [json.loads(l)["id"] for l in one.stdout.splitlines()] == sum(([n] * len(alone[n]) for n in alone), []))
check("one after the other or together, the texts are equal",
      all(text_of(alone[n]) == text_of(together[n]) for n in together) and len(text_of(alone["q0"])) > 20)

kernel = worker("run", "--model", MODEL, "--kernel", "reference", stdin=lines[1] + "\n")
check("the reference kernel gives the same text", text_of(answers(kernel.stdout)["q1"]) == text_of(together["q1"]), kernel.stderr)

small = ["bench", "--model", MODEL, "--json", "--prompt-tokens", "16", "--decode-tokens", "4", "--repeats", "1", "--batch", "1"]
flags = set(open("/proc/cpuinfo").read().split("flags", 1)[1].split("\n", 1)[0].split())
needs = {"reference": set(), "avx2": {"avx2", "fma", "f16c"}, "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"},
         "amx": {"avx512_vnni", "amx_tile", "amx_int8"}}
peaks = {}
for path, wanted in needs.items():
    forced = worker(*small, env={"PARLEY_KERNEL": path})
    if not wanted <= flags:
        check(f"PARLEY_KERNEL={path} is refused by name where the processor lacks it", forced.returncode == 65 and path in forced.stderr, forced.stderr)
        continue
    report = json.loads(forced.stdout) if forced.returncode == 0 else {}
    check(f"PARLEY_KERNEL={path} is what runs", report.get("kernel") == path, (report, forced.stderr))
    peaks[path] = report["int8_gops"]
    said = answers(worker("run", "--model", MODEL, stdin=lines[1] + "\n", env={"PARLEY_KERNEL": path}).stdout)
    check(f"PARLEY_KERNEL={path} gives the same text", text_of(said["q1"]) == text_of(together["q1"]))
check("a flag stands above PARLEY_KERNEL", json.loads(worker(*small, "--kernel", "reference", env={"PARLEY_KERNEL": "avx2"}).stdout)["kernel"] == "reference")
check("the peak measured is that of the forced path's instruction",
      peaks["reference"] == 0 and 0 < peaks.get("avx2", 1) < peaks.get("avx512vnni", float("inf")), peaks)
check("a PARLEY_KERNEL of no such name is 64", worker(*small, env={"PARLEY_KERNEL": "abacus"}).returncode == 64)

seeded = [worker("run", "--model", MODEL, "--text", "--seed", s, stdin=ask("Tell me a story.", temperature=1) + "\n").stdout
          for s in ("1", "1", "2")]
check("a seed repeats itself, another differs", seeded[0] == seeded[1] != seeded[2], seeded)

stop = answers(worker("run", "--model", MODEL, stdin=envelope("s", questions[0], stop_sequences=["blue", "of a"]) + "\n").stdout)["s"]
delta = [m["body"] for m in stop if m["verb"] == "EVENT" and m["body"]["type"] == "message_delta"][0]["delta"]
check("a stop sequence is told and its text is not shown",
      delta["stop_reason"] == "stop_sequence" and delta["stop_sequence"] in ("blue", "of a")
      and text_of(together["q0"]).split(delta["stop_sequence"])[0] == text_of(stop), (delta, text_of(stop)))

cut = together["q0"]
events = [m for m in cut if m["verb"] == "EVENT"]
half = events[:8]
meta = {"attempt": 2, "produced": sum((m["meta"].get("ids", []) for m in half), []), "block": 0,
        "released": len(text_of(half).encode()), "text": text_of(half)}
rest = answers(worker("run", "--model", MODEL, stdin=envelope("q0", questions[0], meta) + "\n").stdout)["q0"]
check("a continuation sends the very rest, and no event twice",
      text_of(half) + text_of(rest) == text_of(cut) and sum(m["verb"] == "EVENT" for m in rest) == len(events) - len(half),
      (text_of(half), text_of(rest)))
check("a continuation counts replayed tokens once", rest[-1]["meta"]["usage"] == cut[-1]["meta"]["usage"])

passed = json.dumps({"parley": 1, "verb": "END", "id": "x", "meta": {"status": "ok"}, "body": None})
bad = worker("run", "--model", MODEL, stdin=f"{passed}\n\nnonsense\n{envelope('after', 'Hi')}\n{ask('Hi', max_tokens='5')}\n")
mixed = answers(bad.stdout)
check("a bad line gives 65 at the end", bad.returncode == 65, bad.returncode)
check("an answer that comes in passes through unchanged", passed in bad.stdout.splitlines())
check("a bad line is answered under its number", mixed.get("line-3", [{}])[-1].get("meta", {}).get("status") == "invalid_request_error", sorted(mixed))
check("what follows a bad line is answered", mixed["after"][-1]["meta"]["status"] == "ok")
check("a body that is wrong says where", any(m["meta"].get("message") == "max_tokens: Input should be a valid integer"
                                             for a in mixed.values() for m in a if m["verb"] == "END"), bad.stdout[-400:])
long = answers(worker("run", "--model", MODEL, "--context", "64", stdin=envelope("l", "word " * 200) + "\n").stdout)["l"][-1]["meta"]
check("a prompt that is too long says so in the exact words",
      long["message"].startswith("prompt is too long: ") and long["message"].endswith(" tokens > 63 maximum"), long)

check("no such model is 66", worker("run", "--model", "/nonexistent.gguf").returncode == 66)
check("an unknown option is 64", worker("run", "--bogus").returncode == 64)
check("a kernel of no such name is 64", worker("run", "--model", MODEL, "--kernel", "abacus").returncode == 64)

bench = worker("bench", "--model", MODEL, "--json", "--prompt-tokens", "32", "--decode-tokens", "8", "--repeats", "1", "--batch", "1", "--batch", "3")
check("bench ends with 0", bench.returncode == 0, bench.stderr)
report = json.loads(bench.stdout)
check("bench reports both batches, and speeds above 0", [r["batch"] for r in report["results"]] == [1, 3]
      and all(r["decode_tok_s"] > 0 and r["prefill_tok_s"] > 0 and r["step_ms"] > 0 for r in report["results"]), report)
check("bench holds itself against a measured roofline", report["read_gb_s"] > 0.5 and report["kv_token_bytes"] == 23040
      and all(0 < r["decode_roofline_share"] < 1.5 for r in report["results"])
      and (report["kernel"] == "amx" or all(0 < r["prefill_peak_share"] < 1 for r in report["results"])), report)
deep = worker("bench", "--model", MODEL, "--json", "--decode-tokens", "4", "--repeats", "1", "--batch", "1", "--depth", "16", "--depth", "64")
check("bench goes through all depths", deep.returncode == 0 and [r["prompt_tokens"] for r in json.loads(deep.stdout)["results"]] == [16, 64], deep.stderr)
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as asked:
    for text in ("Say this again, word for word: one two three four five six seven eight nine ten.", "What is rain?"):
        asked.write(json.dumps({"model": "m", "max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": text}]}) + "\n")
    asked.flush()
    twice = worker("bench", "--model", MODEL, "--json", "--requests", asked.name, "--speculate", "8", "--decode-tokens", "40", "--repeats", "1", "--batch", "2")
    row = json.loads(twice.stdout)["results"][0] if twice.returncode == 0 else {}
    check("bench runs real requests without and with speculation, and they agree", twice.returncode == 0 and row["plain_decode_tok_s"] > 0
          and row["drafted_tokens"] >= row["accepted_tokens"], twice.stdout + twice.stderr)
    asked.write("{}\n")
    asked.flush()
    bad = worker("bench", "--model", MODEL, "--requests", asked.name)
    check("a body that is no request is 65, with its line", bad.returncode == 65 and ":3:" in bad.stderr, bad.stderr)
    asked.seek(0)
    asked.truncate()
    asked.write(json.dumps({"model": "m", "max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": "Say this again, word for word: one two three four five six seven eight nine ten."}]}) + "\n")
    asked.flush()
    # The model as its own draft: never worth it, but always right, so that its guesses are seen to be taken.
    own = worker("bench", "--model", MODEL, "--draft", MODEL, "--json", "--requests", asked.name, "--speculate", "3", "--decode-tokens", "60", "--repeats", "1", "--batch", "2")
    row = json.loads(own.stdout)["results"][0] if own.returncode == 0 else {}
    check("a draft model changes no answer, and its guesses are taken", own.returncode == 0 and 0 < row["accepted_tokens"] <= row["drafted_tokens"],
          own.stdout + own.stderr)
drafted = answers(worker("run", "--model", MODEL, "--draft", MODEL, stdin="\n".join(lines) + "\n").stdout)
check("run with a draft model gives the same texts", all(text_of(drafted[n]) == text_of(together[n]) for n in together), drafted)
GEMMA = os.path.join(os.path.dirname(MODEL), "gemma3-270m-q4_k_m.gguf")
if os.path.exists(GEMMA):
    other = worker("run", "--model", MODEL, "--draft", GEMMA)
    check("a draft model with another tokenizer is refused with 78", other.returncode == 78 and "tokenizer" in other.stderr, other.stderr)
check("a draft model that is not there is 66", worker("run", "--model", MODEL, "--draft", "/nonexistent.gguf").returncode == 66)
check("a draft model without speculation is 64", worker("run", "--model", MODEL, "--draft", MODEL, "--speculate", "0").returncode == 64)
check("a draft model beside simulation is 64", worker("run", "--simulate", "--draft", MODEL).returncode == 64)
check("a draft model beside several models is 64", worker("serve", "--model", MODEL, "--model", GEMMA, "--draft", MODEL, "--bind", "tcp://127.0.0.1:*").returncode == 64)
check("a depth that is no number is 64", worker("bench", "--model", MODEL, "--depth", "deep").returncode == 64)

TEXT = os.path.join(ROOT, "tests/bench/perplexity_text.txt")
read = worker("bench", "--model", MODEL, "--json", "--perplexity", TEXT, "--window", "256")
check("bench --perplexity ends with 0", read.returncode == 0, read.stderr)
found = json.loads(read.stdout)
check("the second half of each window is scored, but for its last position", found["window"] == 256
      and found["windows"] == found["text_tokens"] // 256 and found["scored_tokens"] == found["windows"] * 127, found)
check("the perplexity is exp of the mean, between 1 and a vocabulary's guessing", abs(math.exp(found["nll"]) / found["perplexity"] - 1) < 1e-9
      and 5 < found["perplexity"] < 60 and found["perplexity_error"] > 0, found)
few = worker("bench", "--model", MODEL, "--json", "--perplexity", TEXT, "--window", "256", "--rows-max", "16", "--threads", "1")
check("the perplexity does not depend on chunks and threads", json.loads(few.stdout)["perplexity"] == found["perplexity"], few.stdout)
check("the table has the same perplexity", f"{found['perplexity']:.4f}" in worker("bench", "--model", MODEL, "--perplexity", TEXT, "--window", "256").stdout)
short = worker("bench", "--model", MODEL, "--perplexity", TEXT, "--window", "2048")
check("a text shorter than two windows is 65", short.returncode == 65 and "fewer than two windows" in short.stderr, (short.returncode, short.stderr))
check("no such text is 66", worker("bench", "--model", MODEL, "--perplexity", "/nonexistent.txt").returncode == 66)

print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
