#!/bin/sh
# Shares a folder that holds bulk.bin of $MB megabytes (1) with $HDRIVE. Prints LISTENING <drive key, in hex>.
set -eu
. "$NATLAB_DIR/hdrive/common.sh"
mkdir -p "$NATLAB_TMP/shared"
head -c "$((${MB:-1} << 20))" /dev/urandom >"$NATLAB_TMP/shared/bulk.bin"
exec "$HDRIVE" share "$NATLAB_TMP/shared" 2>&1 | while read -r what rest; do
    case $what in
    key:) key=$rest ;;
    # What is announced now can be found.
    shared:) echo "LISTENING $(node -e 'console.log(require("z32").decode(process.argv[1]).toString("hex"))' "$key")" ;;
    *) echo "$what $rest" ;;
    esac
done
