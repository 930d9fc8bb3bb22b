#!/usr/bin/env python3
"""A TCP connection beside something else on the same link, and both their shares.

    beside.py serve PORT cubic|bbr      sends without end to whoever connects
    beside.py read FILE HOST PORT       reads FILE and the connection at the same time: $WARM seconds (5) that do not
                                        count, then $SECONDS (20); prints RESULT with the Mbit/s of both
"""
import json, os, socket, sys, threading, time


def serve(port, control):
    listener = socket.create_server(("0.0.0.0", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
    print("READY", flush=True)
    while True:
        connection, _ = listener.accept()
        try:
            while True:
                connection.sendall(bytes(1 << 16))
        except OSError:
            connection.close()


class Counter(threading.Thread):
    def __init__(self, read):
        super().__init__(daemon=True)
        self.read, self.bytes = read, 0
        self.start()

    def run(self):
        while n := len(self.read()):
            self.bytes += n


def read(path, host, port):
    file = os.open(path, os.O_RDONLY)
    connection = socket.create_connection((host, port), 10)
    connection.settimeout(None)
    both = [Counter(lambda: os.read(file, 1 << 16)), Counter(lambda: connection.recv(1 << 16))]
    time.sleep(float(os.environ.get("WARM", 5)))
    before, began = [c.bytes for c in both], time.monotonic()
    time.sleep(float(os.environ.get("SECONDS", 20)))
    took = time.monotonic() - began
    ours, tcp = [round((c.bytes - b) * 8 / took / 1e6, 2) for c, b in zip(both, before)]
    print("RESULT", json.dumps({"ok": all(c.is_alive() for c in both), "ms": round(took * 1000), "file": ours, "tcp": tcp}), flush=True)
    os._exit(0)


if sys.argv[1:2] == ["serve"]:
    serve(int(sys.argv[2]), sys.argv[3])
elif sys.argv[1:2] == ["read"]:
    read(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    sys.exit(__doc__)
