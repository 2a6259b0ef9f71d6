"""llama.cpp's server as an anchor: found in a folder where somebody has built it, started, asked over its OpenAI route.

    server = LlamaServer.find(folder, model)     # None where no llama-server is there: the caller says so
    with server as s: s.ask("Hello.", 16)        # → (seconds to the first text, seconds of all, text)

Nothing is downloaded or built here: `llama-server` of any build of llama.cpp in FOLDER, FOLDER/bin or FOLDER/build/bin serves.
"""
import http.client
import json
import os
import socket
import subprocess
import time

ABSENT = "llama.cpp's server: no llama-server under '{}', its column is left out (--anchor FOLDER names one)"
# What issue 7 states of it, on this kind of host: for the reader of a table without the column.
STATED = "llama.cpp's server as issue 7 states it: beside the flood 13,800 to 21,600 ms against 38 ms alone; at 4 times its capacity 15 % of its peak, first token after 27 s, nothing refused"


class LlamaServer:
    def __init__(self, program, model, slots, threads):
        self.program, self.model, self.slots, self.threads = program, model, slots, threads
        self.process = None
        self.host, self.port, self.headers = "127.0.0.1", 0, {"content-type": "application/json"}

    @classmethod
    def find(cls, folder, model, slots=16, threads=None):
        for inside in ("", "bin", os.path.join("build", "bin")):
            program = os.path.join(folder, inside, "llama-server") if folder else ""
            if program and os.access(program, os.X_OK):
                return cls(program, model, slots, threads or os.cpu_count())
        return None

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([self.program, "-m", self.model, "-t", str(self.threads), "-np", str(self.slots), "-c", str(1024 * self.slots),
                                         "--host", self.host, "--port", str(self.port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.program} ended with {self.process.returncode}")
            try:
                connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{self.program} is not ready after 60 s")

    def __exit__(self, kind, value, trace):
        self.process.terminate()
        self.process.wait(20)

    def ask(self, text, max_tokens, timeout=300, model="default"):
        return ask_openai(self.host, self.port, self.headers, text, max_tokens, timeout, model)


def ask_openai(host, port, headers, text, max_tokens, timeout, model):
    """(seconds to the first text or None, seconds of all, the text, HTTP status) of one streamed chat completion."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    start, first, out = time.monotonic(), None, ""
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": model, "stream": True, "temperature": 0, "max_tokens": max_tokens,
                                                                   "messages": [{"role": "user", "content": text}]}), headers)
    response = connection.getresponse()
    if response.status != 200:
        response.read()
    else:
        for raw in response:
            line = raw.decode().strip()
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            for choice in json.loads(line[6:]).get("choices", []):
                piece = choice.get("delta", {}).get("content") or ""
                if piece and first is None:
                    first = time.monotonic() - start
                out += piece
    connection.close()
    return first, time.monotonic() - start, out, response.status
