#!/bin/sh
# Seeds the drive $KEY with $HDRIVE until it has $PEERS (2) connections. RESULT: ms from the start of the process.
set -u
. "$NATLAB_DIR/hdrive/common.sh"
start=$(date +%s%N)
"$HDRIVE" -v seed --no-relay "$KEY" 2>"$NATLAB_TMP/peers.log" >/dev/null &
pid=$!
ok=false
while [ "$((($(date +%s%N) - start) / 1000000))" -lt "${LIMIT:-20000}" ]; do
    if [ "$(grep -c 'connected addr=' "$NATLAB_TMP/peers.log")" -ge "${PEERS:-2}" ]; then
        ok=true
        break
    fi
    sleep 0.02
done
ms=$((($(date +%s%N) - start) / 1000000))
kill "$pid"
[ "$ok" = true ] || cat "$NATLAB_TMP/peers.log"
echo "RESULT {\"ok\": $ok, \"ms\": $ms}"
