"""The manuals and the programs say the same: options both ways, defaults, examples, libraries."""

import os
import re

import docs
from docs import check, value

ELSEWHERE = {"bash", "systemd", "systemctl", "jq", "curl"}  # pages of other packages

docs.need_tools()
compared = 0
for tool in docs.TOOLS:
    page = docs.page_of(tool)
    if not check(page, f"{tool} has one manual page"):
        continue
    verbs = docs.verbs_of(tool)
    known = set().union(*verbs.values()) | docs.TOP
    entries, mentioned = docs.manual_options(page)
    documented = {name for _, _, name, _ in entries}
    name = os.path.basename(page)
    for verb, options in verbs.items():
        for option in sorted(set(options) - documented - docs.COMMON):
            check(False, f"{name} does not document --{option} of `{tool} {verb}`")
    for option in sorted(mentioned | documented):
        check(option in known, f"{name} speaks of --{option}, which no verb of {tool} has")
    for _, subsection, option, text in entries:
        under = subsection.removeprefix("Cm ").strip()
        if under in verbs:
            check(option in verbs[under], f"{name} lists --{option} under {under}, which does not have it")
        # A default in the page is the program's; where verbs differ one of them is enough.
        # "Default 5s and 1000." of two options at once, or "10s, unless …", states no single value.
        plain = re.sub(r"\\ ", " ", re.sub(r" \.(Ql|Cm|Li|Pq) ", " ", " " + text))
        stated = re.search(r"Default:? (-?[0-9]+(?:[.,][0-9]+)*(?: ?(?:[KMGT]i?B|kB)|[a-z]+)?)(?! and|, unless| \.Ar|[.,:]?[0-9])(?=[ .,;]|$)", plain)
        defaults = [o[option] for v, o in verbs.items() if o.get(option) is not None and (under not in verbs or v == under)]
        if stated and defaults:
            compared += 1
            check(value(stated[1]) in [value(d) for d in defaults],
                  f"{name}: the default of --{option} is {' or '.join(defaults)}, not {stated[1]}")

check(compared >= 40, f"defaults in the pages were found and compared: {compared}")

shown = 0
for page in sorted(os.listdir(os.path.join(docs.ROOT, "man"))):
    if re.search(r"\.[18]$", page) or page == "parley.7":
        for shell in docs.examples_of(os.path.join(docs.ROOT, "man", page)):
            shown += docs.accepts(page, shell)
check(shown >= 20, f"the EXAMPLES hold commands of ours: found {shown}")

with open(os.path.join(docs.ROOT, "man", "parley.7")) as file:
    overview = file.read()
for common in sorted(docs.COMMON | docs.TOP):
    check(re.search(rf"\.It Fl -{common}\b", overview), f"parley.7 explains --{common}, which every tool has")
for library in sorted(os.listdir(os.path.join(docs.ROOT, "lib"))):
    if os.path.isdir(os.path.join(docs.ROOT, "lib", library)):
        check(re.search(rf"^\.It {library}$", overview, re.M), f"parley.7 has a sentence about lib/{library}")
for page in sorted(os.listdir(os.path.join(docs.ROOT, "man"))):
    with open(os.path.join(docs.ROOT, "man", page)) as file:
        for other, section in re.findall(r"^\.Xr (\S+) (\d)", file.read(), re.M):
            check(other in ELSEWHERE or os.path.exists(os.path.join(docs.ROOT, "man", f"{other}.{section}")), f"{page} refers to {other}({section}), which is not there")
docs.finish()
