#!/usr/bin/env python3
"""Decoding with and without speculation, in turns inside one process, on text that repeats its prompt and on text that does not.

    PARLEY_BUILD=build tests/bench/speculation.py [--model FILE] [--speculate 8] [--batch 1,4,16] [--repeats 7] [--json]

copy-greedy   asks to say a text of the prompt again, word for word or with a small change, at temperature 0
copy-seeded   the same at temperature 0.7
open-greedy   short questions and tales, at temperature 0: a small model that loops flatters speculation, so see the next
open-seeded   the same at temperature 1

Both sides give the same tokens, or infer-worker bench ends with an error. It prints a table, or with --json one JSON object.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
parser = argparse.ArgumentParser()
parser.add_argument("--model", default=os.path.expanduser("~/.cache/parley/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
parser.add_argument("--speculate", type=int, default=8)
parser.add_argument("--batch", default="1,4,16")
parser.add_argument("--repeats", type=int, default=7)
parser.add_argument("--decode-tokens", type=int, default=160)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--json", action="store_true")
args = parser.parse_args()

TEXTS = [
    "The harbour of Vestmark lies behind a long wall of grey stone. In winter the fishing boats stay inside it for weeks, and the men mend "
    "nets in the sheds along the quay. When the ice breaks in March, the whole town comes down to the water to see the first boat leave.",
    "def total(prices, rate):\n    result = 0\n    for price in prices:\n        if price < 0:\n            raise ValueError('negative price')\n"
    "        result += price\n    return result * (1 + rate)\n",
    '{"name": "Ada Lovelace", "born": 1815, "field": "mathematics", "works": ["Notes on the Analytical Engine"], "languages": ["English", '
    '"French", "Italian"], "address": {"city": "London", "country": "United Kingdom"}}',
    "Dear Mr Holm, thank you for your order of 14 May. The lamp with the green shade is on its way to you and should arrive on Thursday. "
    "The second lamp is out of stock until June; we will write to you again as soon as it has been sent. Yours sincerely, Ingrid Dahl.",
    "1. Boil one litre of water. 2. Add two hundred grams of rice and a pinch of salt. 3. Turn the heat down and wait for twelve minutes. "
    "4. Pour off the water. 5. Stir in butter, pepper and the chopped herbs, and serve the rice at once in warm bowls.",
]
COPY = ["Repeat the following text word for word, and say nothing else:\n\n{}", "Copy this text exactly:\n\n{}",
        "Here is a text:\n\n{}\n\nWrite the same text again without any change."]
OPEN = ["What is the capital of France, and what is it known for?", "Tell me a short tale about a fox and a clock.",
        "Explain how a bicycle stays upright.", "Why is the sky blue?", "Describe a market in the early morning.",
        "What should I think of before I adopt a dog?", "How does a lighthouse work?", "Write a letter to a friend who has moved away."]


def body(text, temperature):
    return json.dumps({"model": "m", "max_tokens": args.decode_tokens, "temperature": temperature, "messages": [{"role": "user", "content": text}]})


copy = [ask.format(text) for ask in COPY for text in TEXTS]
sets = {"copy-greedy": (copy, 0), "copy-seeded": (copy, 0.7), "open-greedy": (OPEN, 0), "open-seeded": (OPEN, 1)}
worker = os.path.join(ROOT, os.environ.get("PARLEY_BUILD", "build"), "bin", "infer-worker")
report = {"speculate": args.speculate, "repeats": args.repeats, "sets": {}}
for name, (texts, temperature) in sets.items():
    rows = []
    # A batch of one has one request: each in a run of its own, so that the row is about all of them.
    for batch in args.batch.split(","):
        groups = [[t] for t in texts] if batch == "1" else [texts]
        runs = []
        for group in groups:
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
                file.write("".join(body(t, temperature) + "\n" for t in group))
                file.flush()
                done = subprocess.run([worker, "bench", "--model", args.model, "--requests", file.name, "--speculate", str(args.speculate),
                                       "--threads", str(args.threads), "--batch", batch, "--decode-tokens", str(args.decode_tokens),
                                       "--repeats", str(args.repeats), "--json"], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{name}, batch {batch}: {done.stderr}")
            whole = json.loads(done.stdout)
            report["kernel"], report["model"] = whole["kernel"], whole["model"]
            runs.append(whole["results"][0])
        runs = [r for r in runs if r["decode_tok_s"] > 0]
        # Harmonic: each text counts by its tokens' time, not by its speed.
        mean = lambda key: len(runs) / sum(1 / r[key] for r in runs)
        row = {"batch": int(batch), "plain_tok_s": mean("plain_decode_tok_s"), "tok_s": mean("decode_tok_s"),
               "drafted": sum(r["drafted_tokens"] for r in runs), "accepted": sum(r["accepted_tokens"] for r in runs)}
        row["ratio"] = row["tok_s"] / row["plain_tok_s"]
        rows.append(row)
        if not args.json:
            print(f"{name:12} batch {row['batch']:3}  without {row['plain_tok_s']:7.1f} tok/s  with {row['tok_s']:7.1f}  x {row['ratio']:.2f}  "
                  f"guessed {row['drafted']:.0f}, right {row['accepted']:.0f}", flush=True)
    report["sets"][name] = rows
if args.json:
    print(json.dumps(report))
