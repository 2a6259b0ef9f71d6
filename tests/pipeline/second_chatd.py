"""Another chatd on the state of a running pipeline."""

import os
import re
import subprocess
import time

from harness import ROOT, Pipeline


class SecondChatd:
    """Another chatd on the same state."""

    def __init__(self, pipeline):
        build = os.environ.get("PARLEY_BUILD", "build")
        binary = os.path.join(build if os.path.isabs(build) else os.path.join(ROOT, build), "bin", "chatd")
        self.log = os.path.join(pipeline.state, "log", "second-chatd.log")
        self.process = subprocess.Popen([binary, "serve", "--bind", "127.0.0.1:0"], env=dict(os.environ, PARLEY_STATE=pipeline.state),
                                        stdout=subprocess.DEVNULL, stderr=open(self.log, "w"))
        self.host, self.port = "127.0.0.1", None
        self.headers = pipeline.headers
        for _ in range(400):
            found = re.search(r"http://127\.0\.0\.1:(\d+)", open(self.log).read())
            if found:
                self.port = int(found[1])
                try:
                    if Pipeline.request(self, "GET", "/readyz")[0] == 200:
                        return
                except OSError:
                    pass
            time.sleep(0.05)
        raise AssertionError("no second chatd: " + open(self.log).read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
