#!/bin/sh
# $CLIENTS (4) readers at once, each a process with a store of its own. RESULT: how many were served, ms of the slowest.
set -u
host=$NATLAB_HOST
for i in $(seq "${CLIENTS:-4}"); do
    NATLAB_HOST="$host-$i" python3 "$NATLAB_DIR/hdrive/read.py" >"$NATLAB_TMP/many-$i" &
done
wait
cat "$NATLAB_TMP"/many-* | awk -v of="${CLIENTS:-4}" '
    /"ok": true/ { served++; match($0, /"ms": [0-9]+/); ms = substr($0, RSTART + 6, RLENGTH - 6) + 0; if (ms > most) most = ms }
    END { printf "RESULT {\"ok\": %s, \"served\": %d, \"of\": %d, \"ms\": %d}\n", served == of ? "true" : "false", served, of, most }'
