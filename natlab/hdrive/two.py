#!/usr/bin/env python3
"""Reads /bulk.bin of the drives $KEY and $KEY2 at the same time, each with a process and a store of its own: $WARM seconds (5)
that do not count, then $SECONDS (20). RESULT: the Mbit/s of both, and share, the per cent that the smaller has."""
import json, os, subprocess, threading, time

HERE = os.environ["NATLAB_DIR"]


class Reader(threading.Thread):
    def __init__(self, key, host):
        super().__init__(daemon=True)
        command = ["sh", "-c", f'. {HERE}/hdrive/common.sh; exec timeout 80 "$HDRIVE" cat "{key}/bulk.bin"']
        self.read = subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ, NATLAB_HOST=host))
        self.bytes = 0
        self.start()

    def run(self):
        while chunk := os.read(self.read.stdout.fileno(), 1 << 20):
            self.bytes += len(chunk)


both = [Reader(os.environ[name], host) for name, host in (("KEY", "b1"), ("KEY2", "b2"))]
time.sleep(float(os.environ.get("WARM", 5)))
before, began = [r.bytes for r in both], time.monotonic()
time.sleep(float(os.environ.get("SECONDS", 20)))
took = time.monotonic() - began
rates = [(r.bytes - b) * 8 / took / 1e6 for r, b in zip(both, before)]
ok = all(rate > 0 and r.read.poll() is None for rate, r in zip(rates, both))
print("RESULT", json.dumps({"ok": ok, "rates": [round(rate, 2) for rate in rates], "share": round(min(rates) * 100 / max(sum(rates), 1e-9))}), flush=True)
for r in both:
    r.read.kill()
os._exit(0)
