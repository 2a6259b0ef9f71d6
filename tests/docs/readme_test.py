"""README.md: what it names is there, what it shows is taken by bash, Python and our programs."""

import ast
import glob
import os
import re

import docs
from docs import check

docs.need_tools()
with open(os.path.join(docs.ROOT, "README.md")) as file:
    text = file.read()

for command in ("bash examples/quickstart.sh", "bash tests/run.sh"):
    check(command in text, f"README shows `{command}`")
blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
count = 0
for language, code in blocks:
    if language == "sh":
        count += docs.accepts("README.md", code)
        for script in re.findall(r"\bbash ((?:examples|tests)/\S+)", code):
            check(os.access(os.path.join(docs.ROOT, script), os.R_OK), f"README runs {script}, which is not there")
        # Files of ours that are given to commands, patterns included.
        for path in re.findall(r"(?<![\w/.-])((?:examples|tests|man|tools|lib)/[\w./*@-]+)", code):
            check(glob.glob(os.path.join(docs.ROOT, path)), f"README names {path}, which is not there")
    elif language == "python":
        try:
            ast.parse(code)
        except SyntaxError as error:
            check(False, f"README's Python: {error}")
    else:
        check(language == "", f"README has a block in {language}, which this test does not know")
check(count >= 5, f"README's blocks run our programs: {count}")
prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
for path in re.findall(r"`((?:examples|tests|man|tools|lib|kernels|LICENSE)[\w./-]*)`", prose):
    check(os.path.exists(os.path.join(docs.ROOT, path)), f"README names `{path}`, which is not there")
for tool in docs.TOOLS:
    check(tool in text, f"README names {tool}")
# The line that switches the model on must find its key in the sample.
with open(os.path.join(docs.ROOT, "examples", "etc", "infer-worker.toml")) as file:
    check(re.search(r"^#model = \"/var/lib/parley/models/SmolLM2-135M-Instruct.Q4_1.gguf\"$", file.read(), re.M), "the sample names the service's model")
docs.finish()
