#!/bin/sh
# What do R requests a second feel like, whatever the server does? With objectives, and what met them.
#   PARLEY_API_KEY=… examples/loadgen/open.sh [URL] [R] [more options of loadgen run]
set -eu
here=$(dirname "$0")
url=${1:-http://127.0.0.1:8080}
rate=${2:-0.5}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] && shift
exec "${LOADGEN:-loadgen}" run --url "$url" --rate "$rate" --seed 1 --prompts "$here/chat-turns.jsonl" \
    --warmup 5s --duration 60s --slo-ttft 2s --slo-tpot 100ms "$@"
