"""The systemd units: verified in silence, their command lines taken by the tools, hardened, and nothing that our programs do is forbidden."""

import configparser
import glob
import os
import re
import shutil
import subprocess
import tempfile

import docs
from docs import check

EXPOSURE_MAX = 15  # tenths, as systemd-analyze counts: 1.5 of 10

if not shutil.which("systemd-analyze"):
    docs.skip("no systemd-analyze here")
docs.need_tools()
FOLLOWERS = {"convstore-index": ("convstore", "index"), "convstore-notify": ("convstore", "notify"), "router-standby": ("router", "serve")}  # unit → tool, verb
folder = os.path.join(docs.ROOT, "examples", "systemd")
units = sorted(glob.glob(os.path.join(folder, "*.service")) + glob.glob(os.path.join(folder, "*.target")))
names = [os.path.basename(u) for u in units]
check(set(names) == {"convstore.service", "convstore-index.service", "convstore-notify.service", "router.service", "router-standby.service", "safety-filter.service", "infer-worker@.service", "chatd.service", "parley.target"},
      f"one unit a daemon, one for the router that stands by, and the target: {names}")


def verify(files):
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0 and not done.stderr and not done.stdout, f"systemd-analyze verify: {done.returncode} {done.stdout}{done.stderr}")


def security(unit):
    # --threshold makes the exposure an exit status; --offline reads the file, not a running manager.
    return subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", unit],
                          capture_output=True, text=True, timeout=60)


verify(units)
ports = {}
with tempfile.TemporaryDirectory() as work:
    real = []
    for unit in units:
        parsed = configparser.RawConfigParser(strict=False, delimiters=("=",))
        parsed.optionxform = str
        with open(unit) as file:
            text = file.read()
        parsed.read_string(text)
        name = os.path.basename(unit)
        copy = os.path.join(work, name)
        with open(copy, "w") as file:
            file.write(text.replace("/usr/bin/env ", docs.BIN + "/"))
        real.append(copy)
        if not name.endswith(".service"):
            continue
        unit_name = name.split(".")[0].rstrip("@")
        tool, verb = FOLLOWERS.get(unit_name, (unit_name, "serve"))
        service = parsed["Service"]
        words = service["ExecStart"].replace("%i", "0").split()
        check(words[:3] == ["/usr/bin/env", tool, verb], f"{name} starts {tool} {verb}: {words}")
        done = docs.run(tool, *words[2:], "--check-config")
        check(done.returncode == 0, f"{tool} takes the command line of {name}: {done.stderr}")
        ports[unit_name] = words[words.index("--metrics") + 1]
        check(service["Type"] == "notify" and service["ExecReload"] == "/bin/sh -c 'kill -HUP $MAINPID'", f"{name}: readiness and reload")
        check(service["Restart"] == "always" and service["RestartSec"] == "200ms", f"{name}: started again at once")
        check(parsed["Unit"]["StartLimitIntervalSec"] == "0", f"{name}: without limit")
        check(service["User"] == "parley" and service["StateDirectory"] == "parley", f"{name}: all share one store")
        check("PARLEY_STATE=/var/lib/parley" in text, f"{name}: the state folder is named")
        drain = docs.verbs_of(tool)[verb]["drain-timeout"]
        check(docs.value(service["TimeoutStopSec"]) > docs.value(drain), f"{name} waits longer than {tool} drains ({drain})")
        for secure in ("NoNewPrivileges", "PrivateTmp", "MemoryDenyWriteExecute", "PrivateDevices"):
            check(service.get(secure) == "yes", f"{name}: {secure}")
        check(service["ProtectSystem"] == "strict" and service["CapabilityBoundingSet"] == "", f"{name}: nothing to write, no capability")
        done = security(copy)
        check(done.returncode == 0, f"{name}: exposure above {EXPOSURE_MAX / 10}: {done.stdout[-300:]}{done.stderr}")
        # The measure measures: without its hardening the same unit fails it.
        soft = os.path.join(work, "soft-" + name)
        with open(soft, "w") as file:
            file.write(re.sub(r"^(SystemCallFilter|CapabilityBoundingSet|Protect\w+|Private\w+|User)=.*\n", "", text, flags=re.M))
        check(security(soft).returncode != 0, f"{name} without hardening is above {EXPOSURE_MAX / 10}")
        os.unlink(soft)
    verify(real)
    # And verify would say it: a unit with a wrong key is not silent.
    broken = os.path.join(work, "broken.service")
    with open(broken, "w") as file:
        file.write("[Service]\nExecStart=/bin/true\nPrivateTemp=yes\n")
    done = subprocess.run(["systemd-analyze", "verify", broken], capture_output=True, text=True, timeout=60)
    check(done.stderr, "systemd-analyze verify says that a key is unknown")

check(ports == {"chatd": "127.0.0.1:9101", "safety-filter": "127.0.0.1:9102", "router": "127.0.0.1:9103", "router-standby": "127.0.0.1:9107", "convstore": "127.0.0.1:9104",
                "convstore-index": "127.0.0.1:9105", "convstore-notify": "127.0.0.1:9106",
                "infer-worker": "127.0.0.1:9110"}, f"metrics ports: {ports}")
docs.finish()
