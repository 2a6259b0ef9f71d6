#!/usr/bin/env bash
# Makes one virtual environment per generation of the official SDKs, and one with Claude Code, under the given folder.
set -eu
folder=${1:?usage: install.sh FOLDER}
make_venv() { # NAME PACKAGE…
    local name=$1
    shift
    [ -f "$folder/$name/.done" ] && return 0
    python3 -m venv --clear "$folder/$name" >&2
    "$folder/$name/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    touch "$folder/$name/.done"
}
mkdir -p "$folder"
make_venv anthropic-old 'anthropic==0.75.0'
make_venv anthropic-new 'anthropic>=2,<3'
make_venv openai 'openai>=3,<4'
# Holds the program itself.
make_venv claude-code 'claude-agent-sdk'
