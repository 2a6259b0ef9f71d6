"""The sample configurations are what the tools read: every key, also those that are commented out, and the defaults they show."""

import glob
import json
import os
import re
import subprocess
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
# The policy, too: taken as it is, the same as the one that is compiled in, and refused whole with one word misspelt.
policy = os.path.join(docs.ROOT, "examples", "policy.toml")
with open(policy) as file:
    text = file.read()
line = json.dumps({"text": "hello"}) + "\n"
shipped = docs.run("safety-filter", "run", "--policy", policy, stdin=line)
builtin = docs.run("safety-filter", "run", stdin=line)
check(shipped.returncode == 0 and builtin.returncode == 0, f"safety-filter takes examples/policy.toml: {shipped.stderr}{builtin.stderr}")
check(json.loads(shipped.stdout)["policy"] == json.loads(builtin.stdout)["policy"], f"examples/policy.toml is the policy inside the program: {shipped.stdout}{builtin.stdout}")
with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
    file.write(text.replace("[thresholds.user]", "[thresholds.usr]", 1))
    file.flush()
    done = docs.run("safety-filter", "run", "--policy", file.name, stdin=line)
    check(done.returncode == 78 and "usr" in done.stderr, f"a misspelt policy is refused whole: {done.returncode} {done.stderr}")

# The load scenarios: their options are loadgen's, their prompts can be read.
for script in sorted(glob.glob(os.path.join(docs.ROOT, "examples", "loadgen", "*.sh"))):
    def scenario(*arguments):
        return subprocess.run(["sh", script, *arguments], env={**docs.environment(), "LOADGEN": os.path.join(docs.BIN, "loadgen")},
                              capture_output=True, text=True, timeout=60)
    done = scenario("http://127.0.0.1:1", "1", "--check-config")
    check(done.returncode == 0, f"{os.path.basename(script)}: {done.stderr}")
for prompts in sorted(glob.glob(os.path.join(docs.ROOT, "examples", "loadgen", "*.jsonl")) + glob.glob(os.path.join(docs.ROOT, "examples", "loadgen", "*.txt"))):
    done = docs.run("loadgen", "run", "--url", "http://127.0.0.1:1", "--requests", "1", "--prompts", prompts)
    check(done.returncode == 69, f"{os.path.basename(prompts)} is read, and nobody listens on port 1: {done.returncode} {done.stderr}")
docs.finish()
