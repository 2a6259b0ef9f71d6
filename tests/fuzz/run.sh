#!/usr/bin/env bash
# Builds every libFuzzer harness with clang, ASan and UBSan in build-fuzz/ and runs each for SECONDS from
# its kept corpus: tests/fuzz/run.sh [SECONDS] [NAME…]. What is new goes to build-fuzz/found/NAME; an input
# that breaks something stands in build-fuzz/ as crash-…, and the status is 1. 77 where there is no clang.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
seconds=${1:-10}
[ $# -gt 0 ] && shift
command -v clang++ >/dev/null || { echo "SKIPPED: no clang++ here"; exit 77; }
dir=$root/build-fuzz
mkdir -p "$dir/found"
names=("$@")
[ ${#names[@]} -gt 0 ] || for file in "$root"/tests/fuzz/*_fuzz.cpp; do file=${file##*/}; names+=("${file%_fuzz.cpp}"); done
flags='-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -O1 -g1'
cmake -S "$root" -B "$dir" -G Ninja -DPARLEY_FUZZ=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" >"$dir/configure.log" 2>&1 || { tail -20 "$dir/configure.log"; exit 1; }
ninja -C "$dir" "${names[@]/%/_fuzz}" >"$dir/build.log" 2>&1 || { grep -m1 -A20 FAILED "$dir/build.log"; exit 1; }
status=0
cd "$dir" || exit 1
# One fuzzer to its end; says how many inputs it ran. On a busy host a process may stand still for longer than
# the limit of an input: what timed out counts if it does so alone, and else the time that is left goes on.
fuzz() {
    local name=$1 end=$((SECONDS + seconds)) left=$seconds slow ran=0
    mkdir -p "found/$name"
    while :; do
        "bin/${name}_fuzz" "found/$name" "$root/tests/fuzz/corpus/$name" -max_total_time="$left" -timeout=10 -rss_limit_mb=4096 \
            -print_final_stats=1 >"$name.log" 2>&1 && break
        slow=$(sed -n 's|.*Test unit written to \./\(timeout-[0-9a-f]*\).*|\1|p' "$name.log")
        [ -n "$slow" ] && "bin/${name}_fuzz" -timeout=10 "$slow" >"$name.again.log" 2>&1 || return 1
        rm -f "$slow"
        ran=$((ran + $(inputs "$name")))
        left=$((end - SECONDS))
        [ "$left" -gt 0 ] || { echo "$ran"; return 0; }
    done
    echo $((ran + $(inputs "$name")))
}
inputs() { sed -n 's/^stat::number_of_executed_units: *//p' "$1.log" | grep . || echo 0; }

for name in "${names[@]}"; do
    if ran=$(fuzz "$name"); then
        echo "ok    $name: $ran inputs in $seconds s"
    else
        status=1
        echo "FAIL  $name"
        tail -30 "$name.log"
    fi
done
exit $status
