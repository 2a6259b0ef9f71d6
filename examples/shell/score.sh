#!/usr/bin/env bash
# Which lines of a text would the safety policy stop? stdin is text; stdout is verdict, score and the
# line, tab-separated, the least safe first. Exit 1 when something would be blocked, as grep says it.
#   examples/shell/score.sh < questions.txt
set -uo pipefail
text=$(mktemp)
trap 'rm -f "$text"' EXIT
jq -Rc 'select(length > 0) | {id: ., text: .}' >"$text"
safety-filter run <"$text" | jq -r '[.verdict, (.score * 1000 | round / 1000), .id] | @tsv' | sort -t "$(printf '\t')" -k2,2 -rg
status=("${PIPESTATUS[@]}")
exit "${status[0]}"
