#!/bin/sh
# What happens to the path of $SIDE (a or b): TROUBLE=forget: its NAT forgets every mapping (a `sym` one gives another port
# then); TROUBLE=address: it has another address; TROUBLE=interface: it goes on over another interface, with another address, as
# a laptop whose cable is pulled; anything else: nothing.
set -eu
side=${SIDE:-b}
case $side in a) net=192.168.1 open=203.0.113.1 ;; *) net=192.168.2 open=203.0.113.2 ;; esac
case ${TROUBLE:-none}$(eval "echo \${NATLAB_$(echo "$side" | tr ab AB)_KIND}" | sed 's/^open.*/-open/;t;s/.*//') in
forget*) $NATLAB_EXEC "$side.nat0" -- python3 "$NATLAB_DIR/forget.py" ;;
address-open)
    $NATLAB_EXEC core -- ip route add "${open}5/32" dev "$side"
    $NATLAB_EXEC "$side" -- sh -c "ip addr add ${open}5/32 dev eth0; ip route replace default via 192.0.2.1 dev eth0 src ${open}5; ip addr del ${open}0/32 dev eth0" ;;
interface) $NATLAB_EXEC "$side" -- sh -c "ip link add other0 link eth0 type macvlan mode bridge; ip addr del $net.2/24 dev eth0; ip link set other0 up; ip addr add $net.8/24 dev other0; ip route replace default via $net.1 dev other0" ;;
address) $NATLAB_EXEC "$side" -- sh -c "ip addr del $net.2/24 dev eth0; ip addr add $net.7/24 dev eth0; ip route replace default via $net.1" ;;
esac
