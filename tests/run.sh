#!/usr/bin/env bash
# Installs what is missing, builds, fetches the model, runs every test, and ends with one line:
# "N passed, N failed" (and ", N skipped" where a test said that it could not run here).
#
#   --fast     only the part that takes under three minutes (no SDK clients, no kill tests)
#   --preset P build and test with another preset of CMakePresets.json (asan, tsan, dev)
set -u
. "$(dirname "${BASH_SOURCE[0]}")/../examples/common.sh"

fast="" preset=release
while [ $# -gt 0 ]; do
    case $1 in
        --fast) fast=1 ;;
        --preset) preset=${2:?--preset needs a name}; shift ;;
        --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) die "unknown option '$1': see --help" 64 ;;
    esac
    shift
done
[ "$preset" = release ] || export PARLEY_BUILD=build-$preset

need_packages "${parley_packages[@]}" shellcheck strace systemd clang libclang-rt-14-dev chromium chromium-driver python3-selenium
dir=$(build_dir)
mkdir -p "$dir"
if [ "$preset" != release ] && [ ! -f "$dir/build.ninja" ]; then
    cmake --preset "$preset" -S "$parley_root" >"$dir/configure.log" 2>&1 || { tail -20 "$dir/configure.log" >&2; die "configuring failed"; }
fi
say "building with preset $preset"
build
fetch_model

labels=()
[ -n "$fast" ] && labels=(-LE slow)
if [ -z "$fast" ]; then bash "$parley_root/tests/clients/install.sh" "$dir/clients" || say "the SDK clients could not be installed: their tests will say SKIPPED"; fi

log=$dir/ctest.log
export PARLEY_MODEL PARLEY_CLIENTS=$dir/clients
PARLEY_MODEL=$(model_path)
ctest --test-dir "$dir" --output-on-failure --no-tests=error "${labels[@]}" -j2 2>&1 | tee "$log"
result=${PIPESTATUS[0]}

total=$(sed -n 's/.* tests failed out of \([0-9]*\).*/\1/p' "$log" | tail -1)
failed=$(sed -n 's/.* \([0-9]*\) tests failed out of.*/\1/p' "$log" | tail -1)
skipped=$(grep -c '\*\*\*Skipped' "$log")
[ -n "$total" ] || die "ctest did not finish"
if [ "$skipped" -gt 0 ]; then echo "$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
else echo "$((total - failed)) passed, $failed failed"
fi
exit "$result"
