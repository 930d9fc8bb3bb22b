#!/usr/bin/env python3
"""Makes the NAT of this network namespace forget every mapping, as a router does that was switched off and on."""
import socket, struct, subprocess

NETLINK_NETFILTER, CTNETLINK, DELETE, REQUEST, ACK = 12, 1, 2, 1, 4
body = struct.pack("=BBH", socket.AF_INET, 0, 0)
head = struct.pack("=IHHII", 16 + len(body), CTNETLINK << 8 | DELETE, REQUEST | ACK, 1, 0)
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as kernel:
    kernel.send(head + body)
    error = struct.unpack_from("=i", kernel.recv(4096), 16)[0]
    if error:
        raise OSError(-error, "conntrack was not flushed")
for kind, name in (("map", "inward"), ("map", "outward"), ("set", "taken"), ("set", "permitted")):
    subprocess.run(["nft", "flush", kind, "ip", "natlab", name], stderr=subprocess.DEVNULL)
