#!/bin/sh
# Two hosts on one switch: no route to anywhere else, and no node of the DHT. One shares a megabyte with $HDRIVE, the
# other reads it. $1 says who begins: sharer or reader; $2 what addresses they have: ipv4, or only what IPv6 makes of
# the interface itself (ipv6). Nothing leaves the network namespace that this makes.
# RESULT: ms to the first byte, from the start of the process that comes second; ms until the drive was mounted and read by
# another process; by which path.
set -eu
if [ "${INSIDE:-}" != 1 ]; then
    exec env INSIDE=1 unshare --net --mount --pid --fork --kill-child --mount-proc sh "$0" "$@"
fi
addresses=$2
dir=/mnt # of a mount namespace that ends with this
mount -t tmpfs none "$dir"
ip link add switch type bridge mcast_snooping 0
ip link set switch up
host() {
    unshare --net sleep 1000 &
    pid=$!
    while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    ip link add "to-$1" type veth peer name eth0 netns "$pid"
    ip link set "to-$1" master switch up
    [ "$addresses" = ipv6 ] || nsenter -t "$pid" -n ip addr add "192.168.77.$1/24" dev eth0
    nsenter -t "$pid" -n ip link set lo up
    nsenter -t "$pid" -n ip link set eth0 up
}
# In place of this shell, so that the number of a job is its own.
as_host() {
    host=$1
    shift
    exec nsenter -t "$host" -n env -u HDRIVE_LOCAL -u HDRIVE_NO_LAN HDRIVE_STORE="$dir/$host" \
        HDRIVE_BOOTSTRAP=203.0.113.1:49737 "$HDRIVE" "$@"
}
on() (as_host "$@")
now() { echo $(($(date +%s%N) / 1000000)); }
line() {
    for _ in $(seq 600); do
        if text=$(grep "^$1: " "$2"); then
            echo "${text#"$1: "}"
            return
        fi
        sleep 0.05
    done
    cat "$2" >&2
    return 1
}
host 1
sharer=$pid
host 2
reader=$pid
# A host first looks whether nobody else has its address of IPv6.
sleep 2
mkdir "$dir/shared" "$dir/mount"
head -c 1048576 /dev/urandom >"$dir/shared/bulk.bin"
as_host "$sharer" share "$dir/shared" >"$dir/first" 2>&1 &
first=$!
key=$(line key "$dir/first")
read_it() {
    on "$reader" cat "$key/bulk.bin" | (
        head -c 1 >"$dir/byte"
        [ -s "$dir/byte" ] && now >"$dir/came" && cat >/dev/null
    )
}
case $1 in
sharer)
    sleep 3
    start=$(now)
    read_it
    ;;
reader)
    kill $first
    wait $first || true
    (until read_it; do :; done) 2>/dev/null &
    reads=$!
    sleep 3
    start=$(now)
    as_host "$sharer" share "$dir/shared" >"$dir/second" 2>&1 &
    wait $reads
    ;;
esac
ms=$(($(cat "$dir/came") - start))
start=$(now)
on "$reader" mount --daemon "$key" "$dir/mount" >/dev/null
nsenter -t "$reader" -n cmp "$dir/mount/bulk.bin" "$dir/shared/bulk.bin"
mounted=$(($(now) - start))
path=$(on "$reader" status --json | sed 's/.*"path":"\([a-z]*\)".*/\1/')
on "$reader" umount "$dir/mount" >/dev/null
echo "RESULT {\"ok\": true, \"ms\": $ms, \"mounted_ms\": $mounted, \"path\": \"$path\"}"
