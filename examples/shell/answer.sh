#!/usr/bin/env bash
# One question, one answer: no daemon, no filter, no store.
#   PARLEY_MODEL=smol.gguf examples/shell/answer.sh What is a mutex?
set -euo pipefail
jq -cn --arg question "$*" '{model: "local", max_tokens: 60, temperature: 0, messages: [{role: "user", content: $question}]}' |
    infer-worker run --text
