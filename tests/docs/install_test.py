"""cmake --install puts programs, manual pages and completions where the README says."""

import os
import subprocess
import tempfile

import docs
from docs import check

docs.need_tools()
build = os.path.dirname(docs.BIN)
if not os.path.exists(os.path.join(build, "cmake_install.cmake")):
    docs.skip(f"{build} is no build folder")
with tempfile.TemporaryDirectory() as prefix:
    done = subprocess.run(["cmake", "--install", build, "--prefix", prefix], capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"cmake --install: {done.stdout[-500:]}{done.stderr[-1000:]}")
    for tool in docs.TOOLS:
        path = os.path.join(prefix, "bin", tool)
        ran = subprocess.run([path, "--version"], capture_output=True, text=True) if os.access(path, os.X_OK) else None
        check(ran and ran.returncode == 0, f"bin/{tool} is installed and runs")
        section = os.path.basename(docs.page_of(tool) or ".8")[-1]
        check(os.path.exists(os.path.join(prefix, "share", "man", f"man{section}", f"{tool}.{section}")), f"the manual of {tool} is installed")
        script = os.path.join(prefix, "share", "bash-completion", "completions", tool)
        if check(os.path.exists(script), f"the completion of {tool} is installed"):
            with open(script) as file:
                check(file.read() == docs.run(tool, "--completion").stdout, f"the installed completion of {tool} is what it prints")
    extra = set(os.listdir(os.path.join(prefix, "bin"))) - set(docs.TOOLS)
    check(not extra, f"nothing else is installed in bin/: {extra}")
docs.finish()
