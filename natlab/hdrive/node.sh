#!/bin/sh
# The only node of a DHT, which forgets what it had stored when it ends.
set -eu
echo $$ >"$NATLAB_TMP/node.pid"
export HDRIVE_BOOTSTRAP="$NATLAB_IP:9"
exec "$HDRIVE" dht --bind "$NATLAB_IP:49737" 2>&1
