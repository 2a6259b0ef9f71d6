#!/bin/sh
# How fast are answers when N patient readers each ask the next thing as soon as they have the last?
#   PARLEY_API_KEY=… examples/loadgen/closed.sh [URL] [N] [more options of loadgen run]
set -eu
here=$(dirname "$0")
url=${1:-http://127.0.0.1:8080}
readers=${2:-4}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] && shift
exec "${LOADGEN:-loadgen}" run --url "$url" --concurrency "$readers" --prompts "$here/chat-short.jsonl" \
    --warmup-requests "$readers" --duration 30s "$@"
