#!/usr/bin/env bash
# Requests in, judged answers out: the three stages that stand between the front and the model, in a pipe.
# stdin is a Messages API body a line; stdout is one object a request, as it ends: its text, and why it
# stopped. A request that the filter blocks becomes its refusal and never reaches the model.
#   PARLEY_MODEL=smol.gguf examples/shell/judged.sh < requests.jsonl
set -uo pipefail
safety-filter run --filter |
    infer-worker run |
    safety-filter run --filter --output |
    jq -cn --unbuffered '
        foreach inputs as $line ({open: {}, done: null};
            .done = null
            | if $line.verb == "EVENT" then
                .open[$line.id].text += ($line.body.delta.text? // "")
                | .open[$line.id].stop = ($line.body.delta.stop_reason? // .open[$line.id].stop)
              elif $line.verb == "END" then
                .done = {id: $line.id, status: $line.meta.status} + (.open[$line.id] // {})
                | del(.open[$line.id])
              else . end;
            .done | values)'
status=("${PIPESTATUS[@]}")
# 1 of a filter says that something was blocked: here it is an answer like the others.
for code in "${status[@]}"; do [ "$code" -le 1 ] || exit "$code"; done
