#!/usr/bin/env bash
# What does the store do? One line a change, from now on or from where the last run stopped: each commit
# once, in order, also over restarts of the store. Ends with Ctrl-C.
#   PARLEY_STATE=… examples/shell/changes.sh [CURSOR-FILE]
set -euo pipefail
convstore tail --follow ${1:+--cursor "$1"} | jq -r --unbuffered '[.seq, (.ms / 1000 | todate), .type, .org] | @tsv'
