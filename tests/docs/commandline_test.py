"""All six tools behave alike on the command line: help, version, refusals, completion."""

import os
import subprocess
import tempfile

import docs
from docs import check

COMPLETE = r"""
set -eu
eval "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
"_$(printf %s "$1" | tr a-z- A-Z_)" || [ ${#COMPREPLY[@]} -eq 0 ]
printf '%s\n' "${COMPREPLY[@]}"
"""


def complete(script, *words):
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", script, *words], capture_output=True, text=True)
    check(done.returncode == 0 and not done.stderr, f"completing {words}: {done.stderr}")
    return done.stdout.split()


def refused(tool, status, *arguments):
    done = docs.run(tool, *arguments)
    shown = f"{tool} {' '.join(arguments)}"
    check(done.returncode == status, f"`{shown}` ends with {done.returncode}, not {status}")
    check(done.stdout == "", f"`{shown}` prints on stdout: {done.stdout!r}")
    check(done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), f"`{shown}` says it in one line: {done.stderr!r}")
    return done.stderr


docs.need_tools()
versions = set()
for tool in docs.TOOLS:
    done = docs.run(tool, "--version")
    check(done.returncode == 0 and not done.stderr and done.stdout.startswith(tool + " "), f"{tool} --version: {done.stdout!r}")
    versions.add(done.stdout.split()[-1])
    done = docs.run(tool, "--help")
    check(done.returncode == 0 and not done.stderr and tool in done.stdout, f"{tool} --help is on stdout alone: {done.stderr!r}")

    check("--no-such-option" in refused(tool, 64, "--no-such-option"), f"{tool} names the option that it does not know")
    refused(tool, 64, "no-such-verb")
    refused(tool, 64)
    verbs = docs.verbs_of(tool)
    for verb, options in verbs.items():
        words = verb.split()
        check("--no-such-option" in refused(tool, 64, *words, "--no-such-option"), f"`{tool} {verb}` names the option that it does not know")
        check(docs.COMMON <= set(options), f"`{tool} {verb}` has {docs.COMMON}")
    # A configuration that is not there, that has an unknown key, that is no TOML.
    verb = "serve" if "serve" in verbs else "run"
    check("/no/such/file" in refused(tool, 78, verb, "--config", "/no/such/file", "--check-config"), f"{tool} names the file")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[{verb}]\nno-such-key = 1\n")
        file.flush()
        check("no-such-key" in refused(tool, 78, verb, "--config", file.name, "--check-config"), f"{tool} names the key")

    done = docs.run(tool, "--completion")
    script = done.stdout
    check(done.returncode == 0 and not done.stderr and script, f"{tool} --completion prints a script")
    syntax = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    check(syntax.returncode == 0 and not syntax.stderr, f"bash takes the completion of {tool}: {syntax.stderr}")
    check(set(complete(script, tool, "")) == {v.split()[0] for v in verbs}, f"{tool} <TAB> offers the verbs")
    check("--version" in complete(script, tool, "--v"), f"{tool} --v<TAB> offers --version")
    for verb, options in verbs.items():
        offered = complete(script, tool, *verb.split(), "--")
        check(set(offered) == {"--" + o for o in options}, f"{tool} {verb} --<TAB> offers its options, got {offered}")
        check(complete(script, tool, *verb.split(), "") == [], f"{tool} {verb} <TAB> leaves file names to bash")
        if " " in verb:
            outer, inner = verb.split()
            check(inner in complete(script, tool, outer, inner[:2]), f"{tool} {outer} {inner[:2]}<TAB> offers {inner}")
    if tool == "chatd":
        check("--bind" in complete(script, "chatd", "serve", "--b"), "chatd serve --b<TAB> offers --bind")

    installed = os.path.join(os.path.dirname(docs.BIN), "completions", tool)
    if os.path.exists(installed):
        with open(installed) as file:
            check(file.read() == script, f"completions/{tool} in the build folder is what {tool} --completion prints")
check(len(versions) == 1, f"all tools have one version: {versions}")
docs.finish()
