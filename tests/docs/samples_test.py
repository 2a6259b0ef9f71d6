"""The sample configurations are what the tools read: every key, also those that are commented out, and the defaults they show."""

import glob
import os
import re
import tempfile

import docs
from docs import check, value

docs.need_tools()
files = {os.path.basename(p)[:-5]: p for p in glob.glob(os.path.join(docs.ROOT, "examples", "etc", "*.toml"))}
check(sorted(files) == sorted(docs.TOOLS), f"each tool has one sample: {sorted(files)}")

for tool, path in sorted(files.items()):
    with open(path) as file:
        text = file.read()
    verb = re.search(r"^\[([a-z]+)\]$", text, re.M)
    verb = verb[1] if verb else "serve"
    done = docs.run(tool, verb, "--config", path, "--check-config")
    check(done.returncode == 0, f"{tool} takes {os.path.relpath(path, docs.ROOT)}: {done.stderr}")

    # `#key = value` is a key that is off; a comment has a blank after its #.
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.M))
        file.flush()
        done = docs.run(tool, verb, "--config", file.name, "--check-config")
        check(done.returncode == 0, f"{tool} takes its sample with everything switched on: {done.stderr}")

    # The check would see a wrong key: each key, misspelt, is refused.
    options = docs.verbs_of(tool)[verb]
    for key, shown in re.findall(r"^([a-z-]+) = (.*)$", text, re.M):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(re.sub(rf"^{key} = ", f"x{key} = ", text, flags=re.M))
            file.flush()
            done = docs.run(tool, verb, "--config", file.name, "--check-config")
            check(done.returncode == 78 and f"x{key}" in done.stderr, f"{tool} refuses the key x{key}: {done.returncode} {done.stderr}")
        default = options.get(key)
        if default is not None:
            check(value(default) == value(shown), f"{tool}.toml shows {key} = {shown} as a default, the program has {default}")
docs.finish()
