"""llama.cpp built for this host, from the source package of llama-cpp-python on PyPI.

The anchor of engine_vs_llamacpp.py: GGML_NATIVE, no GPU, static, its own benchmark programs. Built once into
a folder that is kept; a second call finds it. ANCHOR_AMX=0 leaves out the AMX tiles (a VNNI-only build).

    from llamacpp_native import Native
    native = Native.build("build/llamacpp-native")      # raises Unavailable
    native.rate("-p", "512", "-n", "0", flash=True)     # tokens a second of one llama-bench row
"""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python"
TARGETS = ["llama-bench", "llama-batched-bench", "llama-perplexity"]


class Unavailable(Exception):
    """The anchor cannot be had here: no PyPI, no compiler."""


class Native:
    def __init__(self, bin_folder, version, timeout=600):
        self.bin, self.version, self.timeout = bin_folder, version, timeout

    @classmethod
    def build(cls, folder, jobs=None):
        bin_folder, stamp = os.path.join(folder, "build", "bin"), os.path.join(folder, "VERSION")
        if os.path.exists(stamp):
            with open(stamp, encoding="utf-8") as file:
                return cls(bin_folder, file.read().strip())
        os.makedirs(folder, exist_ok=True)
        try:
            run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PACKAGE,
                 "-d", folder, PACKAGE])
            package = sorted(glob.glob(os.path.join(folder, "llama_cpp_python-*.tar.gz")))[-1]
            with tarfile.open(package) as archive:
                archive.extractall(folder)
            source = os.path.join(package[:-len(".tar.gz")], "vendor", "llama.cpp")
            amx = ["-DGGML_AMX_TILE=OFF", "-DGGML_AMX_INT8=OFF"] if os.environ.get("ANCHOR_AMX") == "0" else []
            run(["cmake", "-S", source, "-B", os.path.join(folder, "build"), "-G", "Ninja",
                 "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DGGML_CUDA=OFF", "-DBUILD_SHARED_LIBS=OFF",
                 "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
                 "-DLLAMA_BUILD_SERVER=OFF", *amx])
            run(["ninja", "-C", os.path.join(folder, "build"), "-j", str(jobs or os.cpu_count()), *TARGETS])
        except (OSError, IndexError, subprocess.SubprocessError, tarfile.TarError) as error:
            raise Unavailable(f"{PACKAGE} cannot be built here: {error}") from error
        version = os.path.basename(package)[len("llama_cpp_python-"):-len(".tar.gz")]
        shutil.rmtree(package[:-len(".tar.gz")], ignore_errors=True)
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(version + "\n")
        return cls(bin_folder, version)

    def call(self, program, *args):
        return subprocess.run([os.path.join(self.bin, program), *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=True, timeout=self.timeout)

    def rate(self, model, threads, flash, *args):
        """Tokens a second of one llama-bench row, one repetition after its own warm-up."""
        out = self.call("llama-bench", "-m", model, "-t", str(threads), "-r", "1", "-o", "json",
                        "-fa", "1" if flash else "0", *args)
        return json.loads(out.stdout)[-1]["avg_ts"]

    def batched(self, model, threads, flash, prompt, decode, streams):
        """One llama-batched-bench row: {"decode": tok/s of all, "prefill": tok/s, "step_ms": mean}."""
        out = self.call("llama-batched-bench", "-m", model, "-t", str(threads), "-tb", str(threads),
                        "-c", str((prompt + decode + 8) * streams), "-b", "2048", "-ub", "512",
                        "-npp", str(prompt), "-ntg", str(decode), "-npl", str(streams),
                        "-fa", "on" if flash else "off", "--output-format", "jsonl")
        for line in reversed(out.stdout.decode().splitlines()):
            if line.lstrip().startswith("{"):
                row = json.loads(line)
                return {"decode": row["speed_tg"], "prefill": row["speed_pp"],
                        "step_ms": row["t_tg"] * 1e3 / decode}
        raise ValueError("llama-batched-bench printed no row")

    def perplexity(self, model, threads, text, window):
        out = self.call("llama-perplexity", "-m", model, "-t", str(threads), "-f", text, "-c", str(window))
        printed = (out.stdout + out.stderr).decode(errors="replace")
        return float(re.search(r"Final estimate: PPL = ([0-9.]+)", printed).group(1))


def run(command):
    subprocess.run(command, check=True, timeout=3600, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
