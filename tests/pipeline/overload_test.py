"""Ten times what a simulated worker can do: refusals come at once and say when to come again, and what is taken is in time."""

import statistics
import threading
import time

import fair_test
import harness

SLO_MS = 1000
# 4 slots; an answer of 40 tokens takes about 40 · (1.7 + 4 · 0.49) ms: 25 a second.
WORKER = "--simulate-tokens=0 --slots-max=4"
TOKENS, PER_S = 40, 25


class Client(threading.Thread):
    """One of many: asks `rate` times a second whatever the answers do, each with a deadline for its first token."""

    def __init__(self, p, key, rate, seconds):
        super().__init__()
        self.p, self.rate, self.seconds = p, rate, seconds
        self.headers = {**p.headers({"x-api-key": key}), "x-slo-ttft-ms": str(SLO_MS)}
        self.refused, self.taken, self.wrong, self.threads = [], [], [], []

    def one(self):
        start = time.monotonic()
        stream = harness.Stream(self.p, "/v1/messages", self.p.body("Hello there.", stream=True, max_tokens=TOKENS), self.headers)
        if stream.end == "refused":
            self.refused.append(time.monotonic() - start)
            after = int(stream.response.headers.get("retry-after", 0))
            kind = (stream.status, stream.error["error"]["type"])
            if not 1 <= after <= 60 or kind not in ((429, "rate_limit_error"), (529, "overloaded_error")):
                self.wrong.append((after, kind))
            return
        first = []
        stream.read(lambda _, event: event["type"] == "content_block_delta" and not first and first.append(time.monotonic() - start))
        (self.taken if stream.end == "done" and first else self.wrong).append(first[0] if first else stream.error)

    def run(self):
        end = time.monotonic() + self.seconds
        due = time.monotonic()
        while due < end:
            time.sleep(max(0, due - time.monotonic()))
            self.threads.append(threading.Thread(target=self.one))
            self.threads[-1].start()
            due += 1 / self.rate
        for thread in self.threads:
            thread.join(60)


def load(p, orgs, times, seconds):
    clients = [Client(p, org.key, times * PER_S / len(orgs), seconds) for org in orgs]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return [sum((getattr(client, what) for client in clients), []) for what in ("taken", "refused", "wrong")]


def test_refusals_at_ten_times_the_load_take_less_than_20_ms():
    with harness.Pipeline(PARLEY_MODEL="/no/such/model.gguf", PARLEY_SIMULATE=WORKER) as p:
        orgs = [fair_test.Org(p, f"org-{i}", 1) for i in range(4)]
        load(p, orgs, 1, 3)  # what an answer costs is learnt
        taken, refused, wrong = load(p, orgs, 10, 5)
        assert not wrong, wrong[:5]
        assert len(refused) >= 5 * len(taken) > 0, (len(refused), len(taken))
        good = sum(first * 1000 <= SLO_MS for first in taken)
        refused.sort()
        print(f"      {len(refused)} refused: p50 {statistics.median(refused) * 1000:.1f} ms, p99 {refused[int(0.99 * len(refused))] * 1000:.1f}; "
              f"{len(taken)} taken, {good} of them in time, TTFT p50 {statistics.median(taken) * 1000:.0f} ms")
        assert statistics.median(refused) < 0.02, statistics.median(refused)
        assert good >= 0.7 * len(taken), (good, len(taken))
        # Afterwards it is as if nothing had been.
        time.sleep(1.5)
        first, stream = orgs[0].ask(4)
        assert stream.end == "done" and first < 2, (first, stream.end, stream.error)


if __name__ == "__main__":
    harness.run_tests(globals())
