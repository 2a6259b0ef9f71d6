#!/bin/sh
# What do chatd, filter and router add? Receipt of the first delta minus the worker's stamp of it, one
# request at a time, on the machine that the worker runs on. JSON on stdout; see chain_overhead_ms.
#   PARLEY_API_KEY=… examples/loadgen/chain-overhead.sh [URL] [COUNT] [more options of loadgen run]
set -eu
here=$(dirname "$0")
url=${1:-http://127.0.0.1:8080}
count=${2:-200}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] && shift
exec "${LOADGEN:-loadgen}" run --url "$url" --concurrency 1 --requests "$count" --warmup-requests 5 \
    --prompts "$here/chat-short.jsonl" --max-tokens 4 --temperature 0 --chain-overhead --json "$@"
