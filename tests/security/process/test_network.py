"""A program looks for a network: there is loopback, its own, and nothing else.

Nothing here is sent to any address but loopback.
"""

from __future__ import annotations

import errno
import socket

from tests.security.process.conftest import Run

INTERFACES = """
import socket
def routes(path):
    with open(path) as file:
        return [line.split() for line in file]
print(json.dumps({
    "interfaces": [name for _, name in socket.if_nameindex()],
    "routes": routes("/proc/net/route")[1:],
    "routes6": sorted({line[-1] for line in routes("/proc/net/ipv6_route")}),
}))
"""
CONNECT = """
import socket
def connect():
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5):
        pass
answers({"connect": lambda: attempt(connect)})
"""
SELF = """
import socket
def talk(family, address):
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((address, 0))
        server.listen()
        client.connect(server.getsockname())
        peer, _ = server.accept()
        client.sendall(b"hello")
        return 0 if peer.recv(5) == b"hello" else -1
print(json.dumps({"4": talk(socket.AF_INET, "127.0.0.1"), "6": talk(socket.AF_INET6, "::1"),
                  "name": talk(socket.AF_INET, "localhost")}))
"""


def test_there_is_only_loopback_and_no_way_anywhere_else(probe: Run) -> None:
    found = probe(INTERFACES)
    assert found["interfaces"] == ["lo"]
    assert found["routes"] == []
    assert found["routes6"] in ([], ["lo"])


def test_a_port_of_the_hosts_loopback_is_not_there(probe: Run, control: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert probe(CONNECT, port) == {"connect": errno.ECONNREFUSED}
        assert control(CONNECT, port) == {"connect": 0}


def test_its_own_loopback_works(probe: Run) -> None:
    assert probe(SELF) == {"4": 0, "6": 0, "name": 0}
