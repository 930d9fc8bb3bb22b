# What a program of hdrive needs in the laboratory: its binary, a store of its own, and the first nodes of the DHT.
HDRIVE=${HDRIVE:-hdrive}
export HDRIVE_STORE="$NATLAB_TMP/store-$NATLAB_HOST"
HDRIVE_BOOTSTRAP=$(for ip in $(echo "$NATLAB_BOOT_IPS" | cut -d' ' -f1-3); do printf '%s:49737,' "$ip"; done)
export HDRIVE_BOOTSTRAP="${HDRIVE_BOOTSTRAP%,}"
