#!/bin/sh
# Reads /bulk.bin of the drive $KEY with $HDRIVE, from the start of the process to the last byte.
# RESULT: ms, ok if $MB megabytes (1) came.
set -u
. "$NATLAB_DIR/hdrive/common.sh"
start=$(date +%s%N)
bytes=$(timeout "${LIMIT:-45}" "$HDRIVE" cat "$KEY/bulk.bin" | wc -c)
ms=$((($(date +%s%N) - start) / 1000000))
ok=false
[ "$bytes" -eq "$((${MB:-1} << 20))" ] && ok=true
echo "RESULT {\"ok\": $ok, \"ms\": $ms, \"bytes\": $bytes}"
