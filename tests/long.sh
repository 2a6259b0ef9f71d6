#!/usr/bin/env bash
# What takes too long for tests/run.sh: the sanitizer presets, long fuzzing, and hours of kills.
#
#   tests/long.sh                  everything, about two hours
#   tests/long.sh asan|tsan        one preset over all tests that are not slow
#   tests/long.sh fuzz [SECONDS]   each fuzzer for SECONDS (600)
#   tests/long.sh kill [ROUNDS]    the kill and fail-closed tests ROUNDS times (50)
#   tests/long.sh kills [KILLS]    KILLS of any tool at any moment under users who send and read (300)
#   tests/long.sh readers          1,000 live readers of 50 answers
#   tests/long.sh crash [ROUNDS]   what a power cut leaves of the store after each of its writes (60)
#   tests/long.sh handover [KILLS] KILLS workers killed under 16 live greedy streams, each text compared (50)
#   tests/long.sh schemathesis [EXAMPLES]   requests made from /openapi.json, EXAMPLES for each path (200)
#   tests/long.sh soak_simulated [REQUESTS]   requests and cancels through one simulated worker (100000)
#   tests/long.sh soak_real [REQUESTS]        the same with the model (2000)
#   tests/long.sh rollouts [RUNS]            made-up rollouts of each kind, good and bad (1000)
set -u
. "$(dirname "${BASH_SOURCE[0]}")/../examples/common.sh"
tests=$parley_root/tests

sanitize() {
    # libzmq hides its locking from TSan: under it only the code below the sockets runs.
    local preset=$1 filter=(-LE slow)
    [ "$preset" = tsan ] && filter=(-R '^(base|engine|kernels|telemetry|messages|model|safety|http)$')
    cmake --preset "$preset" -S "$parley_root" >&2 || return 1
    ninja -C "$parley_root/build-$preset" >&2 || return 1
    PARLEY_MODEL=$(model_path) ctest --test-dir "$parley_root/build-$preset" "${filter[@]}" --output-on-failure --timeout 1800
}
kill_rounds() {
    local round
    build_tools
    for round in $(seq "$1"); do
        say "round $round of $1"
        PARLEY_BUILD=$(build_dir) python3 "$tests/pipeline/kill_test.py" || return 1
        PARLEY_BUILD=$(build_dir) python3 "$tests/pipeline/fail_closed_test.py" || return 1
    done
}

crash() {
    build_tools
    ninja -C "$(build_dir)" store_test store_write_recorder >&2 || return 1
    PARLEY_CRASH_ROUNDS=$1 PARLEY_CRASH_DRAWN=4 "$(build_dir)/bin/store_test" '[crash]'
}

handover() {
    build_tools
    PARLEY_KILLS=$1 PARLEY_MODEL=$(model_path) PARLEY_BUILD=$(build_dir) python3 "$tests/pipeline/handover_test.py"
}

random_kills() {
    build_tools
    PARLEY_KILLS=$1 PARLEY_USERS=8 PARLEY_BUILD=$(build_dir) python3 "$tests/pipeline/random_kill_test.py"
}

live_readers() {
    build_tools
    PARLEY_ANSWERS=50 PARLEY_READERS=1000 PARLEY_BUILD=$(build_dir) python3 "$tests/pipeline/live_readers_test.py"
}

soak() {
    build_tools
    PARLEY_MODEL=$(model_path) PARLEY_BUILD=$(build_dir) python3 "$tests/soak.py" "$@"
}

from_openapi() {
    build_tools
    local venv
    venv=$(build_dir)/clients/schemathesis
    if [ ! -f "$venv/.done" ]; then
        python3 -m venv --clear "$venv" >&2 || return 1
        "$venv/bin/pip" install --quiet --disable-pip-version-check 'schemathesis>=4,<5' >&2 || return 1
        touch "$venv/.done"
    fi
    PARLEY_BUILD=$(build_dir) python3 "$tests/schemathesis_run.py" "$venv/bin/schemathesis" "$1"
}

need_packages "${parley_packages[@]}" clang libclang-rt-14-dev
fetch_model
case ${1:-all} in
    asan | tsan) sanitize "$1" ;;
    fuzz) bash "$tests/fuzz/run.sh" "${2:-600}" ;;
    kill) kill_rounds "${2:-50}" ;;
    handover) handover "${2:-50}" ;;
    kills) random_kills "${2:-300}" ;;
    readers) live_readers ;;
    crash) crash "${2:-60}" ;;
    schemathesis) from_openapi "${2:-200}" ;;
    rollouts) build_tools && ninja -C "$(build_dir)" rollout_test >&2 && PARLEY_ROLLOUTS=${2:-1000} "$(build_dir)/bin/rollout_test" ;;
    soak_simulated | soak_real) soak "${1#soak_}" ${2:+"$2"} ;;
    all)
        sanitize asan && sanitize tsan && bash "$tests/fuzz/run.sh" 600 && kill_rounds 50 && random_kills 300 && live_readers && handover 50 && crash 60 && from_openapi 200 &&
            soak simulated && soak real
        ;;
    --help) sed -n '2,16s/^# \{0,1\}//p' "$0" ;;
    *) die "unknown part '$1': see --help" 64 ;;
esac
