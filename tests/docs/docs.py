"""What the tests of the documentation share: the tools' help, the manuals' options and examples. Standard library only.

The tools are taken from PARLEY_BIN, else from build/bin. A test ends with 77 and SKIPPED where it cannot run.
"""

import glob
import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.environ.get("PARLEY_BIN") or os.path.join(ROOT, "build", "bin")
TOOLS = ["chatd", "convstore", "infer-worker", "loadgen", "router", "safety-filter"]
SKIPPED = 77
# Every verb of every tool has these; parley(7) explains them once.
COMMON = {"help", "config", "check-config"}
TOP = {"help", "version", "completion"}

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
         "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

checks = 0
failures = []


def check(good, what):
    """Counts; a failure is printed at once, and the rest goes on."""
    global checks
    checks += 1
    if not good:
        failures.append(what)
        print("FAILED:", what)
    return good


def finish():
    if checks == 0:
        sys.exit("nothing was checked")
    print(f"{checks} checks, {len(failures)} failed")
    sys.exit(1 if failures else 0)


def skip(why):
    print("SKIPPED:", why)
    sys.exit(SKIPPED)


def environment():
    """As a fresh login: no setting of a tool, no state, no configuration of this user."""
    prefixes = ("PARLEY_",) + tuple(t.upper().replace("-", "_") + "_" for t in TOOLS)
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}


def run(tool, *arguments, stdin=None, timeout=60):
    return subprocess.run([os.path.join(BIN, tool), *arguments], input=stdin, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL if stdin is None else None, timeout=timeout, env=environment())


def need_tools():
    missing = [t for t in TOOLS if not os.access(os.path.join(BIN, t), os.X_OK)]
    if missing:
        sys.exit(f"not built: {', '.join(missing)} in {BIN}")


def parse_help(text):
    """({option: default or None}, [verbs]) of one help text."""
    options, verbs, part = {}, [], ""
    for line in text.splitlines():
        if re.match(r"\S.*:$", line):
            part = line[:-1]
        elif part == "Options" and (found := re.match(r"  --([a-z0-9-]+)", line)):
            default = re.match(r"  --\S+ (?:[A-Z]+(?::.*?)?)=(\S+)", line)
            options[found[1]] = default[1] if default else None
        elif part == "Subcommands" and (found := re.match(r"  (\S+)", line)):
            verbs.append(found[1])
    return options, verbs


def verbs_of(tool):
    """{"serve": {option: default}, "org create": …}: all verbs that can be run, with what their help shows."""
    out = {}
    waiting = [()]
    while waiting:
        path = waiting.pop()
        done = run(tool, *path, "--help")
        check(done.returncode == 0, f"{tool} {' '.join(path)} --help ends with {done.returncode}")
        options, verbs = parse_help(done.stdout)
        check(bool(options), f"{tool} {' '.join(path)} --help lists options on stdout")
        waiting += [path + (verb,) for verb in verbs]
        if path and not verbs:
            out[" ".join(path)] = options
    return out


def page_of(tool):
    pages = glob.glob(os.path.join(ROOT, "man", tool + ".[18]"))
    return pages[0] if len(pages) == 1 else None


def manual_options(path):
    """[(section, subsection, option, text below it)] of the `.It Fl -name` entries, and all names that `Fl` marks anywhere."""
    entries, mentioned = [], set()
    section = subsection = ""
    body = None
    with open(path) as file:
        for line in file.read().splitlines():
            if line.startswith(".Sh "):
                section, subsection, body = line[4:], "", None
            elif line.startswith(".Ss "):
                subsection, body = line[4:], None
            names = re.findall(r"\bFl (?:Fl |-)([a-z0-9][a-z0-9-]*)", line) if line.startswith(".") else []
            mentioned.update(names)
            if line.startswith(".It "):
                # `.It Fl -a , Fl -b` are two options; `Ar` and what follows it are not.
                if names:
                    body = []
                    entries += [(section, subsection, name, body) for name in names]
                else:
                    body = None
            elif body is not None:
                body.append(line)
    return [(s, ss, name, " ".join(text)) for s, ss, name, text in entries], mentioned


def examples_of(path):
    """The shell text of the EXAMPLES of one manual: each .Dl line and each .Bd -literal block."""
    out, inside, block = [], False, None
    with open(path) as file:
        for line in file.read().splitlines():
            if line.startswith(".Sh "):
                inside = line == ".Sh EXAMPLES"
            if not inside:
                continue
            if line.startswith(".Dl "):
                out.append(unescape(line[4:]))
            elif line.startswith(".Bd -literal"):
                block = []
            elif line == ".Ed":
                out.append(unescape("\n".join(session(block))))
                block = None
            elif block is not None:
                block.append(line)
    return out


def session(lines):
    """What was typed, where the lines show a prompt: those after `$ `, with what continues them; else all of them."""
    if not any(line.startswith("$ ") for line in lines):
        return lines
    typed = []
    going_on = False
    for line in lines:
        if line.startswith("$ "):
            typed.append(line[2:])
        elif going_on:
            typed.append(line)
        else:
            continue
        going_on = line.rstrip().endswith(("|", "\\", "\\e"))
    return typed


def apart(shell):
    """One text a command line: lines that go on (after | or \\, or within quotes) stay together."""
    out, text = [], ""
    for line in shell.splitlines():
        text += line + "\n"
        quotes = text.count("'") % 2
        if line.strip() and not quotes and not line.rstrip().endswith(("|", "\\")):
            out.append(text)
            text = ""
    return out + ([text] if text.strip() else [])


def value(text):
    """A number with its unit applied, so that 64MiB is 67108864; other text as it stands."""
    text = text.strip("`'\".,").replace(",", "")
    found = re.fullmatch(r"(-?[0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text)
    if found and (not found[2] or found[2] in UNITS):
        return float(found[1]) * UNITS.get(found[2], 1)
    return text


def unescape(text):
    for escape, plain in ((r"\(aq", "'"), (r"\(dq", '"'), (r"\-", "-"), (r"\&", ""), (r"\(ha", "^"), (r"\(ti", "~"), (r"\e", "\\")):
        text = text.replace(escape, plain)
    return text


def commands(shell):
    """Commands of a shell text, as lists of words: pipes and lists taken apart, redirections and comments gone."""
    text = shell.replace("\\\n", " ")
    # A here-document is input, not commands.
    text = re.sub(r"<<-?\s*'?(\w+)'?(.*?)\n.*?\n\s*\1(?=\n|$)", r"\2\n", text, flags=re.S)
    lexer = shlex.shlex(text.replace("\n", " ; ") if "#" not in text else re.sub(r"(^|\s)#[^\n]*", r"\1", text).replace("\n", " ; "),
                        posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    out, words, drop = [], [], False
    for token in lexer:
        if drop:
            drop = False
        elif token and set(token) <= set("<>&") and set(token) & set("<>"):
            drop = True  # what follows is the file
        elif token and set(token) <= set("|&;()"):
            if token != "|" or words:
                out.append(words)
            words = []
        else:
            words.append(token)
    out.append(words)
    return [w for w in out if w]


def tool_command(words):
    """(tool, arguments) when the words run one of ours: after VAR=value, exec, sudo -u USER, a path in front."""
    words = list(words)
    while words:
        if re.match(r"[A-Za-z_][A-Za-z0-9_]*=", words[0]) or words[0] in ("exec", "nice", "time", "env", "if", "then", "do", "while", "!"):
            words.pop(0)
        elif words[0] == "sudo":
            words.pop(0)
            if words and words[0] == "-u":
                words = words[2:]
        else:
            break
    if words and os.path.basename(words[0]) in TOOLS:
        return os.path.basename(words[0]), words[1:]
    return None


def accepts(where, shell):
    """Every command of ours in the shell text is one that the tool takes; bash takes the text. Returns how many."""
    done = subprocess.run(["bash", "-n"], input=shell, capture_output=True, text=True)
    check(done.returncode == 0, f"{where}: bash does not take it: {done.stderr.strip()}\n{shell}")
    count = 0
    for words in commands(shell):
        ours = tool_command(words)
        if not ours:
            continue
        count += 1
        tool, arguments = ours
        if arguments in (["--help"], ["--version"], ["--completion"]):
            outcome = run(tool, *arguments)
        else:
            outcome = run(tool, *arguments, "--check-config")
        check(outcome.returncode == 0, f"{where}: `{tool} {shlex.join(arguments)}` is refused: {outcome.stderr.strip()}")
    return count
