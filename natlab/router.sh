#!/bin/sh
# A host behind a router that runs miniupnpd, and a host outside that knows of no DHT. $HDRIVE seeds a drive inside; the
# one outside reads it at the port of the router that leads there. Nothing leaves the network namespace that this makes.
# $1 says what the router speaks and how the host is: upnp, pcp; off (nothing is wanted), public (the host has a public
# address: nothing is asked).
# RESULT: by what the port is mapped, whether the reader got all, whether the mapping was at the router and is gone after
# the end, how many ms that took, and how many packets asked the router.
set -eu
PATH=$PATH:/usr/sbin:/sbin
if [ "${INSIDE:-}" != 1 ]; then
    exec env INSIDE=1 unshare --net --mount --pid --fork --kill-child --mount-proc sh "$0" "$@"
fi
mode=$1
dir=/mnt # of a mount namespace that ends with this
mount -t tmpfs none "$dir"
lan=192.168.77
[ "$mode" != public ] || lan=21.0.0
host() {
    unshare --net sleep 1000 &
    pid=$!
    while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    ip link add "$1" type veth peer name eth0 netns "$pid"
    ip addr add "$2.1/24" dev "$1"
    ip link set "$1" up
    nsenter -t "$pid" -n ip addr add "$2.2/24" dev eth0
    nsenter -t "$pid" -n ip link set lo up
    nsenter -t "$pid" -n ip link set eth0 up
    nsenter -t "$pid" -n ip route add default via "$2.1"
}
# In place of this shell, so that the number of a job is its own.
as_host() {
    host=$1
    shift
    exec nsenter -t "$host" -n env -u HDRIVE_LOCAL -u HDRIVE_NO_PORT_MAPPING HDRIVE_STORE="$dir/$host" \
        HDRIVE_BOOTSTRAP=203.0.113.1:49737 HDRIVE_NO_LAN=1 "$HDRIVE" "$@"
}
on() (as_host "$@")
now() { echo $(($(date +%s%N) / 1000000)); }
fail() {
    echo "$1" >&2
    cat "$dir"/*.log >&2
    exit 1
}
ip link set lo up
host lan "$lan"
inside=$pid
host wan 20.0.0
outside=$pid
echo 1 >/proc/sys/net/ipv4/ip_forward
# A home router: everything out, nothing in. The chains of miniupnpd are where its own scripts make them.
nft -f - <<END
table inet filter {
    chain upnp { }
    chain pre { }
    chain post { }
    counter asked { }
    chain input { type filter hook input priority 0; iifname lan udp dport { 1900, 5351 } counter name asked; iifname lan tcp dport 5000 counter name asked; }
    chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname lan accept; jump upnp; }
    chain prerouting { type nat hook prerouting priority -100; jump pre; }
    chain postrouting { type nat hook postrouting priority 100; jump post; oifname wan masquerade; }
}
END
upnp=yes
pcp=yes
[ "$mode" != upnp ] || pcp=no
[ "$mode" != pcp ] || upnp=no
cat >"$dir/miniupnpd.conf" <<END
ext_ifname=wan
listening_ip=lan
http_port=5000
enable_upnp=$upnp
enable_natpmp=$pcp
secure_mode=yes
uuid=00000000-0000-0000-0000-000000000001
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=upnp
upnp_nat_chain=pre
upnp_nat_postrouting_chain=post
allow 1024-65535 0.0.0.0/0 1024-65535
END
miniupnpd -d -f "$dir/miniupnpd.conf" -P "$dir/miniupnpd.pid" >"$dir/miniupnpd.log" 2>&1 &
sleep 1
head -c 1048576 /dev/urandom >"$dir/bulk.bin"
on "$inside" create drive >"$dir/create.log" 2>&1
on "$inside" put drive/bulk.bin "$dir/bulk.bin" >>"$dir/create.log" 2>&1
wants=
[ "$mode" != off ] || wants="--no-port-mapping --port 40000"
as_host "$inside" seed -v $wants drive >"$dir/seed.log" 2>&1 &
seed=$!
state=
for _ in $(seq 400); do
    on "$inside" status --json >"$dir/status.json" 2>"$dir/status.log" || true
    state=$(sed -n 's/.*"portMapping":{"state":"\([a-z]*\)".*/\1/p' "$dir/status.json")
    case $state in mapped | none | off) break ;; esac
    sleep 0.1
done
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$dir/status.json"; }
mapped() { nft list chain inet filter pre | grep -q "dnat.*$lan.2:$port"; }
by=$(field by)
external=$(field external)
port=${external##*:}
port=${port:-none}
there=false
mapped && there=true
# Where the router would let him in if it were asked.
[ "$mode" != off ] || external=20.0.0.1:40000
read=false
if [ -n "$external" ]; then
    key=$(on "$inside" status --json | sed 's/.*"names":\[{"name":"drive","key":"\([^"]*\)".*/\1/')
    on "$outside" --peer "$external" cat "$key/bulk.bin" >"$dir/came.bin" 2>"$dir/read.log" || true
    ! cmp "$dir/bulk.bin" "$dir/came.bin" >>"$dir/read.log" 2>&1 || read=true
fi
start=$(now)
kill "$seed"
wait "$seed" || fail "the seed ended with $?"
ms=$(($(now) - start))
gone=true
! mapped || gone=false
asked=$(nft list counter inet filter asked | sed -n 's/.*packets \([0-9]*\).*/\1/p')
[ "$state" != "" ] || fail "no status"
[ "$mode:$read" != upnp:false ] && [ "$mode:$read" != pcp:false ] || cat "$dir"/*.log "$dir/status.json" >&2
echo "RESULT {\"state\": \"$state\", \"by\": \"$by\", \"external\": \"$external\", \"there\": $there, \"read\": $read, \"gone\": $gone, \"end_ms\": $ms, \"asked\": $asked}"
