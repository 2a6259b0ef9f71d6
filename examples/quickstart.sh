#!/usr/bin/env bash
# From a fresh Debian 12 machine to an answer: installs what is missing, builds, fetches a small real
# model, starts the whole pipeline on loopback, asks one question and streams the answer.
#
# stdout is the answer, then the page's address; all else goes to stderr. On a terminal the pipeline
# then stays until Ctrl-C; with --once, or without a terminal, it drains and this exits 0.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

once=
question='What is the capital of France? Answer in one short sentence.'
while [ $# -gt 0 ]; do
    case $1 in
        --once) once=1 ;;
        --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) die "unknown option '$1': see --help" 64 ;;
        *) question=$1 ;;
    esac
    shift
done
[ -t 1 ] || once=1

need_packages "${parley_packages[@]}"
say "building (the first time takes some minutes)"
build_tools
fetch_model

say "starting the pipeline"
exec 3< <(exec bash "$parley_root/examples/pipeline.sh")
pipeline=$!
stop() { kill -TERM "$pipeline" 2>/dev/null; wait "$pipeline" 2>/dev/null; }
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM
read -r line <&3 || { wait "$pipeline"; die "the pipeline did not start"; }
url=$(jq -r .url <<<"$line")
key=$(jq -r .api_key <<<"$line")
model=$(jq -r .model <<<"$line")

say "asking $model: $question"
body=$(jq -cn --arg model "$model" --arg q "$question" \
    '{model: $model, max_tokens: 120, temperature: 0, stream: true, messages: [{role: "user", content: $q}]}')
# Newlines are printed as they come: jq's -j joins the pieces.
curl -fsSN "$url/v1/messages" -H @<(printf 'x-api-key: %s\n' "$key") -H 'anthropic-version: 2023-06-01' \
    -H 'content-type: application/json' -d "$body" |
    sed -un 's/^data: //p' | jq -rj --unbuffered 'select(.type == "content_block_delta") | .delta.text // empty'
status=("${PIPESTATUS[@]}")
echo
if [ "${status[0]}" -ne 0 ]; then
    stop
    die "the question was not answered (curl ended with ${status[0]})" 69
fi
echo "$url/"
if [ -n "$once" ]; then
    stop
    exit 0
fi
say "API key: $key"
say "log in once, within 15 minutes, at: $(cat "$(jq -r .state <<<"$line")/run/login.link" 2>/dev/null)"
say "the pipeline runs until Ctrl-C"
wait "$pipeline"
