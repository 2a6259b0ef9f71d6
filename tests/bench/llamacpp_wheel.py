"""llama.cpp as the generic wheel xllamacpp on PyPI: one server in a process, all streams at once.

Not built for the host; what a user gets with one pip command. Run as a program it is the measured child:

    python llamacpp_wheel.py MODEL STREAMS THREADS PROMPT_TOKENS DECODE_TOKENS
"""
import json
import os
import subprocess
import sys
import threading
import venv

from llamacpp_native import Unavailable

WHEEL = "xllamacpp"


def prompt(length, salt):
    """Token ids of no meaning, different for each sequence (Knuth's MMIX generator)."""
    state, ids = (salt + 1) * 0x9E3779B97F4A7C15 % 2**64, []
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append(1000 + (state >> 33) % 40000)
    return ids


class Wheel:
    def __init__(self, python, version, timeout=600):
        self.python, self.version, self.timeout = python, version, timeout

    @classmethod
    def install(cls, folder):
        python = os.path.join(folder, "bin", "python")
        probe = [python, "-c", "import xllamacpp; print(xllamacpp.__version__)"]
        try:
            return cls(python, subprocess.check_output(probe, stderr=subprocess.DEVNULL).decode().strip())
        except (OSError, subprocess.CalledProcessError):
            pass
        try:
            venv.create(folder, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "-q", WHEEL], check=True, timeout=600,
                           stdout=sys.stderr)
            return cls(python, subprocess.check_output(probe, stderr=subprocess.DEVNULL).decode().strip())
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{WHEEL} cannot be installed: {error}") from error

    def batched(self, model, threads, prompt_tokens, decode_tokens, streams):
        out = subprocess.run([self.python, os.path.abspath(__file__), model, str(streams), str(threads),
                              str(prompt_tokens), str(decode_tokens)], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=True, timeout=self.timeout)
        return json.loads(out.stdout.decode().strip().splitlines()[-1])


def child(model, streams, threads, prompt_tokens, decode_tokens):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_parallel = streams
    params.n_ctx = streams * (prompt_tokens + decode_tokens + 32)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = True
    server = xllamacpp.Server(params)
    timings = [None] * streams

    def ask(i):
        answer = server.handle_completions({
            "prompt": prompt(prompt_tokens, i), "n_predict": decode_tokens,
            "temperature": 0, "ignore_eos": True, "cache_prompt": False})
        timings[i] = answer["timings"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decode = sum(t["predicted_per_second"] for t in timings)
    print(json.dumps({
        "decode": decode, "step_ms": streams * 1e3 / decode,
        "prefill": sum(t["prompt_n"] for t in timings) / max(t["prompt_ms"] for t in timings) * 1e3,
    }), flush=True)


if __name__ == "__main__":
    child(sys.argv[1], *(int(n) for n in sys.argv[2:6]))
