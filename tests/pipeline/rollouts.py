"""What the tests of rollouts share: a pipeline of simulated workers, more workers with versions of their own, traffic, and the router's word."""

import json
import os
import subprocess

import harness
from harness import until


class Rollouts:
    """`options`: of the first worker's simulation. The rest is the pipeline's environment."""

    def __init__(self, options, **environment):
        self.pipeline = harness.Pipeline(PARLEY_SIMULATE=options, **{"ROUTER_ROLLOUT_MIN_TIME": "0s", **environment})
        self.env = dict(os.environ, PARLEY_STATE=self.pipeline.state)
        self.workers = {}

    def stop(self):
        for process in self.workers.values():
            process.kill()
        self.pipeline.stop()

    def router(self, *arguments):
        return subprocess.run([os.path.join(harness.BIN, "router"), *arguments], capture_output=True, text=True, timeout=120, env=self.env)

    def status(self):
        return json.loads(self.router("status", "--json").stdout)

    def rollout(self, alias="latest"):
        lines = self.router("rollout", "status", "--json", alias).stdout.splitlines()
        return json.loads(lines[-1]) if lines else None

    def why(self, alias="latest"):
        return self.rollout(alias)["steps"][-1]["why"]

    def aliases(self):
        return {row["name"]: row for row in map(json.loads, self.router("alias", "list", "--json").stdout.splitlines())}

    def worker(self, name, *options):
        """A worker with a version of its own, simulated-NAME: other synthetic lengths or limits are another hash."""
        log = open(os.path.join(self.pipeline.state, "log", name + ".log"), "a")
        self.workers[name] = process = subprocess.Popen([os.path.join(harness.BIN, "infer-worker"), "serve", "--name", name, *options],
                                                        env=self.env, stdout=log, stderr=log)
        assert until(lambda: name in [w["name"] for w in self.status()["workers"]]), self.pipeline.logs()
        return process

    def start(self, model, *options, alias="latest"):
        done = self.router("rollout", "start", alias, model, *options)
        assert done.returncode == 0, done

    def ask(self, count, salt, threads=8, model="latest", **members):
        """(HTTP status, answer) of as many requests, each a conversation of its own."""
        def some(n):
            return [self.pipeline.request("POST", "/v1/messages", {"model": model, "max_tokens": 8, "messages": [
                {"role": "user", "content": f"{salt} {n} {i}"}], **members})[::2] for i in range(count // threads)]
        return [answer for part in harness.in_threads(threads, some) for answer in part]

    def statuses(self, count, salt, **members):
        return [status for status, _ in self.ask(count, salt, **members)]

    def ask_until_decided(self, salt, limit, alias="latest", stage=None, batch=64, **members):
        """Traffic until the rollout has ended (or left `stage`), at most `limit` requests; how many were asked."""
        for asked in range(0, limit, batch):
            now = self.rollout(alias)
            if now["state"] != "running" or (stage is not None and now["stage"] != stage):
                return asked
            self.ask(batch, f"{salt} {asked}", **members)
        return limit
