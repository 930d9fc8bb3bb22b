#!/bin/sh
# Seeds the drive $KEY with $HDRIVE. Prints SEEDED once all of it is here and can be found.
set -eu
. "$NATLAB_DIR/hdrive/common.sh"
exec "$HDRIVE" seed "$KEY" 2>&1 | sed -u 's/^complete: /SEEDED /'
