#!/usr/bin/env bash
# Starts the whole pipeline on this machine, in the foreground, and prints one line of JSON when it is
# ready: {"url","api_key","model","state","pids","metrics"}. SIGINT or SIGTERM drains and stops it.
#
#   PARLEY_STATE    state folder          (default: a fresh one, removed at the end)
#   PARLEY_PORT     port of the API       (default 0: a free one below the ephemeral range)
#   PARLEY_MODEL    path of a GGUF file   (default: the small model, fetched where it is missing)
#   PARLEY_WORKERS  how many workers      (default 1)
#   PARLEY_ROUTERS  how many routers      (default 1: no other stands by)
#   PARLEY_SIMULATE options of simulated workers instead of a model, such as --simulate-speed=10
#                   (see infer-worker(8), SIMULATION)
#   PARLEY_BUILD    build folder          (default build)
#   PARLEY_NOTIFY   no: nobody is told of answers that wait (default yes)
#   PARLEY_POLICY   safety policy file    (default examples/policy.toml)
#
# A tool that dies is started again within a second, without limit, as systemd would do it. Logs:
# $PARLEY_STATE/log/NAME.log. Process ids: $PARLEY_STATE/run/NAME.pid, replaced by rename.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

workers=${PARLEY_WORKERS:-1}
case $workers in '' | *[!0-9]* | 0) die "PARLEY_WORKERS is a number from 1 on, not '$workers'" 64 ;; esac

routers=${PARLEY_ROUTERS:-1}
case $routers in '' | *[!0-9]* | 0) die "PARLEY_ROUTERS is a number from 1 on, not '$routers'" 64 ;; esac

build_tools
bin=$(build_dir)/bin
if [ -n "${PARLEY_SIMULATE:-}" ]; then
    read -ra engine <<<"--simulate $PARLEY_SIMULATE"
else
    fetch_model
    engine=(--model "$(model_path)")
fi
export PARLEY_POLICY=${PARLEY_POLICY:-$parley_root/examples/policy.toml}
[ -r "$PARLEY_POLICY" ] || die "PARLEY_POLICY: cannot read '$PARLEY_POLICY'" 66

fresh_state=
if [ -z "${PARLEY_STATE:-}" ]; then
    PARLEY_STATE=$(mktemp -d "${TMPDIR:-/tmp}/parley.XXXXXX")
    fresh_state=$PARLEY_STATE
fi
mkdir -p -m 700 "$PARLEY_STATE" || die "cannot create '$PARLEY_STATE'" 74
PARLEY_STATE=$(cd "$PARLEY_STATE" && pwd)
export PARLEY_STATE
mkdir -p -m 700 "$PARLEY_STATE/run" "$PARLEY_STATE/log"
exec 8>"$PARLEY_STATE/pipeline.lock"
flock -n 8 || die "a pipeline runs on '$PARLEY_STATE' already" 75

# A port that nobody listens on, below the range from which the kernel takes its own. A lock file keeps
# two pipelines that start at once apart; the descriptor holds it as long as this script lives.
ports=${XDG_RUNTIME_DIR:-/tmp}/parley-ports-$(id -u)
mkdir -p -m 700 "$ports"
ephemeral=$(cut -f1 /proc/sys/net/ipv4/ip_local_port_range 2>/dev/null || echo 32768)
take_port() { # sets $port

    for _ in $(seq 500); do
        port=$((10240 + (RANDOM * 32768 + RANDOM) % (ephemeral - 10240)))
        exec {lock}>"$ports/$port" || continue
        if flock -n "$lock" && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 0; fi
        exec {lock}>&-
    done
    die "no free port found" 75
}
port=${PARLEY_PORT:-0}
if [ "$port" = 0 ]; then
    take_port
fi
api_port=$port
url=http://127.0.0.1:$api_port

declare -A keeper metrics
names=()

# Keeps one tool running until the keeper gets SIGTERM; then it only waits for the tool's end.
keep() {
    local name=$1 stopping="" pid
    shift
    trap 'stopping=1' TERM
    trap '' INT # a terminal sends it to the whole group; the script decides
    while [ -z "$stopping" ]; do
        "$@" </dev/null >>"$PARLEY_STATE/log/$name.log" 2>&1 8>&- &
        pid=$!
        echo "$pid" >"$PARLEY_STATE/run/.$name.new"
        mv "$PARLEY_STATE/run/.$name.new" "$PARLEY_STATE/run/$name.pid"
        while kill -0 "$pid" 2>/dev/null; do wait "$pid" 2>/dev/null; done
        [ -n "$stopping" ] || sleep 0.2
    done
}

start() { # NAME COMMAND…: the tool gets a metrics address of its own
    local name=$1
    shift
    take_port
    metrics[$name]=127.0.0.1:$port
    names+=("$name")
    keep "$name" "$@" --metrics "127.0.0.1:$port" &
    keeper[$name]=$!
}

pid_of() { cat "$PARLEY_STATE/run/$1.pid" 2>/dev/null; }

# The front first, so that what runs can finish; the store last, so that every end is written.
stop_all() {
    trap '' INT TERM
    local name order=(chatd safety-filter) worker
    for worker in "${names[@]}"; do case $worker in router-*) order+=("$worker") ;; esac; done
    order+=(router)
    for worker in "${names[@]}"; do case $worker in infer-worker-*) order+=("$worker") ;; esac; done
    order+=(convstore-notify convstore-index convstore)
    for name in "${names[@]}"; do kill -TERM "${keeper[$name]}" 2>/dev/null; done
    local deadline=$((SECONDS + 18))
    for name in "${order[@]}"; do
        [ -n "${keeper[$name]:-}" ] || continue
        local pid
        pid=$(pid_of "$name")
        [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null && kill -CONT "$pid" 2>/dev/null
        while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.05; done
        [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
    done
    wait
    [ -n "$fresh_state" ] && rm -rf "$fresh_state"
}
finish() {
    stop_all
    exit "$1"
}
trap 'finish 0' INT TERM

fail_start() {
    say "error: $1"
    local name
    for name in "${names[@]}"; do
        tail -n 3 "$PARLEY_STATE/log/$name.log" 2>/dev/null | sed "s/^/  $name: /" >&2
    done
    finish 70
}

until_ok() { # SECONDS COMMAND…
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

start convstore "$bin/convstore" serve
start convstore-index "$bin/convstore" index
[ "${PARLEY_NOTIFY:-yes}" = no ] || start convstore-notify "$bin/convstore" notify
start router "$bin/router" serve --standby
for ((i = 1; i < routers; i++)); do start "router-$i" "$bin/router" serve --standby; done
start safety-filter "$bin/safety-filter" serve
for ((i = 0; i < workers; i++)); do
    start "infer-worker-$i" "$bin/infer-worker" serve "${engine[@]}" --name "infer-worker-$i"
done
start chatd "$bin/chatd" serve --bind "127.0.0.1:$api_port" --operator-org pipeline

key_file=$PARLEY_STATE/pipeline.key
make_key() {
    "$bin/convstore" org create pipeline --json >/dev/null 2>&1
    local made
    made=$("$bin/convstore" key create --org pipeline --json) || return 1
    (umask 077 && printf '%s' "$made" | jq -er .key | tr -d '\n' >"$key_file.new") && mv "$key_file.new" "$key_file"
}
if [ ! -s "$key_file" ]; then
    until_ok 20 test -S "$PARLEY_STATE/run/convstore.sock" || fail_start "convstore did not start"
    until_ok 20 make_key || fail_start "could not make an API key"
fi
until_ok 60 curl -fsS -m 5 "$url/readyz" || fail_start "the pipeline is not ready after 60 s"
key=$(cat "$key_file")
served=$(curl -fsS -m 5 -H "x-api-key: $key" "$url/v1/models" | jq -r '[.data[].id | select(. != "default")][0] // "default"')

jq -cn --arg url "$url" --arg key "$key" --arg model "$served" --arg state "$PARLEY_STATE" \
    --argjson pids "$(for name in "${names[@]}"; do printf '%s %s\n' "$name" "$(pid_of "$name")"; done | jq -Rn '[inputs | split(" ") | {(.[0]): (.[1] | tonumber)}] | add')" \
    --argjson metrics "$(for name in "${names[@]}"; do printf '%s %s\n' "$name" "${metrics[$name]}"; done | jq -Rn '[inputs | split(" ") | {(.[0]): .[1]}] | add')" \
    '{url: $url, api_key: $key, model: $model, state: $state, pids: $pids, metrics: $metrics}'

while :; do wait; done
