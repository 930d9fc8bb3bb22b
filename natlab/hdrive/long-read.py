#!/usr/bin/env python3
"""Reads /bulk.bin of the drive $KEY with $HDRIVE; two seconds after the first byte something happens to the path (trouble.sh).
RESULT: still_ms, the longest time without a byte from then on; ok if all of $MB megabytes came, and as they were shared."""
import hashlib, json, os, subprocess, time

HERE, TMP = os.environ["NATLAB_DIR"], os.environ["NATLAB_TMP"]
mb, after = int(os.environ.get("MB", "100")), float(os.environ.get("AFTER", "2"))
read = subprocess.Popen(["sh", "-c", f'. {HERE}/hdrive/common.sh; exec timeout ${{LIMIT:-100}} "$HDRIVE" ${{VERBOSE:--v}} cat "$KEY/bulk.bin" 2>{TMP}/read.log'],
                        stdout=subprocess.PIPE)
digest, count, first, still, trouble, last = hashlib.sha256(), 0, None, 0.0, None, None
while chunk := os.read(read.stdout.fileno(), 1 << 20):
    now = time.monotonic()
    first = first or now
    if trouble:
        still = max(still, now - last)
    last, count = now, count + len(chunk)
    digest.update(chunk)
    if not trouble and now > first + after:
        trouble = subprocess.Popen(["sh", f"{HERE}/trouble.sh"])
        at = count
shared = f"{TMP}/shared/bulk.bin"
same = not os.path.exists(shared) or hashlib.file_digest(open(shared, "rb"), "sha256").digest() == digest.digest()
ok = count == mb << 20 and same and trouble is not None and trouble.wait() == 0 and at < count
print("RESULT", json.dumps({"ok": ok, "still_ms": round(still * 1000), "ms": round((last - first) * 1000) if first else None,
                            "bytes": count, "at": at if trouble else None}))
if os.environ.get("LOG"):
    print(open(f"{TMP}/read.log").read())
