#!/usr/bin/env python3
"""Reads /bulk.bin of the drive $KEY with $HDRIVE, from the start of the process to the last byte.
RESULT: connect_ms, until there is a peer; ms, until the last byte; ok if $MB megabytes (1) came."""
import json, os, subprocess, threading, time

HERE = os.environ["NATLAB_DIR"]
began = time.monotonic()
since = lambda: round((time.monotonic() - began) * 1000)
read = subprocess.Popen(["sh", "-c", f'. {HERE}/hdrive/common.sh; exec timeout ${{LIMIT:-45}} "$HDRIVE" -v cat "$KEY/bulk.bin"'],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
connected = []


def look():
    for line in read.stderr:
        if b" connected " in line and not connected:
            connected.append(since())


looking = threading.Thread(target=look)
looking.start()
count = 0
while chunk := os.read(read.stdout.fileno(), 1 << 20):
    count += len(chunk)
ms = since()
read.wait()
looking.join()
ok = count == int(os.environ.get("MB", "1")) << 20
print("RESULT", json.dumps({"ok": ok, "ms": ms, "connect_ms": connected[0] if connected else None, "bytes": count}))
