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
for name in "${names[@]}"; do
    mkdir -p "found/$name"
    if "bin/${name}_fuzz" "found/$name" "$root/tests/fuzz/corpus/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 >"$name.log" 2>&1; then
        echo "ok    $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$name.log") inputs in $seconds s"
    else
        status=1
        echo "FAIL  $name"
        tail -30 "$name.log"
    fi
done
exit $status
