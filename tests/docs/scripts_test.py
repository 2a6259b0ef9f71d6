"""Every shell script of the tree passes shellcheck."""

import os
import shutil
import subprocess

import docs
from docs import check

if not shutil.which("shellcheck"):
    docs.skip("no shellcheck here")
scripts = []
for top in ("examples", "tests", ".ci"):
    for folder, _, names in os.walk(os.path.join(docs.ROOT, top)):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".sh") or folder.endswith(".ci"):
                scripts.append(path)
check(len(scripts) >= 8, f"the scripts are found: {scripts}")
for script in sorted(scripts):
    # SC2174: mkdir -p -m sets the mode of the last folder alone, and that is what is meant.
    done = subprocess.run(["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--severity=warning", "--exclude=SC2174", script],
                          capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"{os.path.relpath(script, docs.ROOT)}:\n{done.stdout}{done.stderr}")
docs.finish()
