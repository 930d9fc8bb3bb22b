#!/bin/sh
# A relay for whoever comes. Prints RELAY <key, in hex>.
set -eu
. "$NATLAB_DIR/hdrive/common.sh"
exec "$HDRIVE" relay 2>&1 | while read -r what rest; do
    case $what in
    relay:) echo "RELAY $(node -e 'console.log(require("z32").decode(process.argv[1]).toString("hex"))' "$rest")" ;;
    *) echo "$what $rest" ;;
    esac
done
