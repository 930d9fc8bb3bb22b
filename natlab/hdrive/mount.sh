#!/bin/sh
# Mounts the drive $KEY with $HDRIVE and reads the first byte of /bulk.bin.
# RESULT: ms from the start of the process to that byte, ok if it came.
set -u
. "$NATLAB_DIR/hdrive/common.sh"
mnt="$NATLAB_TMP/mnt-$NATLAB_HOST"
mkdir -p "$mnt"
start=$(date +%s%N)
"$HDRIVE" mount "$KEY" "$mnt" >&2 &
pid=$!
ms=0
ok=false
while [ "$ms" -lt "${LIMIT:-45}000" ] && [ $ok = false ]; do
    [ "$(head -c 1 "$mnt/bulk.bin" 2>/dev/null | wc -c)" -eq 1 ] && ok=true || sleep 0.01
    ms=$((($(date +%s%N) - start) / 1000000))
done
kill "$pid"
wait "$pid"
echo "RESULT {\"ok\": $ok, \"ms\": $ms}"
