"""The victim: a process of the caller's, outside, that has canaries in all the places it could.

Sent in as text after `inside_kit`. It starts the prey, processes that attacks may hurt, and prints
what an attacker may know; then everything that arrives from anywhere, until its input ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
from typing import Any

from tests.matrix.inside_kit import LIBC, Facts, buffer, call

KEPT: list[Any] = []
_LOCK = threading.Lock()


def said(text: bytes) -> None:
    """Tell the harness what arrived."""
    with _LOCK:
        print(json.dumps({"arrived": text.decode("latin-1")}), flush=True)


def make_prey(count: int) -> tuple[list[int], int]:
    """Start processes that do nothing; gives their ids and where each keeps 64 bytes."""
    kept, address = buffer(64)
    KEPT.append(kept)
    prey = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
            os.closerange(0, 64)
            while True:
                signal.pause()
        prey.append(child)
    return prey, address


def serve(server: socket.socket, reply: bytes, descriptor: int) -> None:
    """Answer whoever connects with a canary, over UNIX sockets with a descriptor too."""
    while True:
        client, _ = server.accept()
        with client:
            said(client.recv(200))
            try:
                if server.family == socket.AF_UNIX:
                    socket.send_fds(client, [reply], [descriptor])
                else:
                    client.sendall(reply)
            except OSError:
                continue


def listen(task: Facts, descriptor: int) -> Facts:
    """Open every kind of socket; gives where they are."""
    found: Facts = {}
    places: dict[str, Any] = {
        "abstract": "\0" + task["abstract"],
        "socket": f"{task['private']}/socket",
        "work_socket": f"{task['work']}/socket",
        "shared_socket": f"/tmp/{task['abstract']}",
    }
    for name, place in places.items():
        server = socket.socket(socket.AF_UNIX)
        server.bind(place)
        server.listen()
        if name != "abstract":
            os.chmod(place, 0o700)
        found[name] = place.replace("\0", "@")
        start(serve, server, task["reply"].encode(), descriptor)
    port = socket.create_server(("127.0.0.1", 0))
    found["tcp"] = port.getsockname()[1]
    start(serve, port, task["reply"].encode(), descriptor)
    port6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    found["tcp6"] = port6.getsockname()[1]
    start(serve, port6, task["reply"].encode(), descriptor)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    found["udp"] = datagrams.getsockname()[1]
    start(drain, datagrams.fileno())
    KEPT.append(datagrams)
    named = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    named.bind(f"\0{task['abstract']}-datagrams")
    start(drain, named.fileno())
    KEPT.append(named)
    return found


def start(action: Any, *arguments: Any) -> None:
    """Do something beside everything else."""
    threading.Thread(target=action, args=arguments, daemon=True).start()


def drain(descriptor: int) -> None:
    """Tell what arrives at a descriptor."""
    while True:
        said(os.read(descriptor, 200))


def fifos(task: Facts) -> None:
    """Make named pipes and read them; opened for both, so that they never end."""
    for path in (f"{task['private']}/fifo", f"{task['work']}/fifo", f"/tmp/{task['token']}-fifo"):
        os.mkfifo(path, 0o600)
        start(drain, os.open(path, os.O_RDWR))


def objects(task: Facts) -> Facts:
    """Make memory segments, queues and a key that hold the canary."""
    key, canary = task["key"], task["ipc"].encode()
    segment = call("shmget", key, 4096, 0o1600)
    KEPT.append(segment)
    LIBC.shmat.restype = ctypes.c_void_p
    ctypes.memmove(LIBC.shmat(segment, None, 0), canary, len(canary))
    queue = call("msgget", key, 0o1600)
    message = (1).to_bytes(8, "little") + canary
    call("msgsnd", queue, message, len(canary), 0)
    semaphores = call("semget", key, 1, 0o1600)
    call("semctl", semaphores, 0, 16, task["number"])
    posix = call("mq_open", task["abstract"].encode() + b"\0", 0o102 | 0o4000, 0o600, 0)
    call("mq_timedsend", posix, canary, len(canary), 0, 0)
    ring = call("add_key", b"user\0", task["abstract"].encode() + b"\0", canary, len(canary), -4)
    return {"segment": segment, "queue": queue, "semaphores": semaphores, "posix": posix,
            "ring": ring}  # fmt: skip


def remove(made: Facts, task: Facts) -> None:
    """Take away what would stay, and tell what arrived in it."""
    message, address = buffer(256)
    while True:
        try:
            # IPC_NOWAIT; type 2 is what attacks send.
            size = call("msgrcv", made["queue"], address, 200, 2, 0o4000)
        except OSError:
            break
        said(message.raw[8 : 8 + size])
    text, place = buffer(8192)
    while True:
        try:
            size = call("mq_timedreceive", made["posix"], place, 8192, 0, 0)
        except OSError:
            break
        said(text.raw[:size])
    call("shmctl", made["segment"], 0, 0)
    LIBC.msgctl(made["queue"], 0, 0)
    call("semctl", made["semaphores"], 0, 0, 0)
    LIBC.mq_unlink(b"/" + task["abstract"].encode())
    # KEYCTL_UNLINK from the user's keyring.
    call("keyctl", 9, made["ring"], -4)


def main(task: Facts) -> None:
    """Be the victim."""
    LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
    prey, address = make_prey(task["prey"])
    LIBC.prctl(15, task["comm"].encode(), 0, 0, 0)
    os.chdir(f"{task['private']}/cwd")
    gone = os.open(f"{task['private']}/gone", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(gone, task["gone"].encode())
    os.unlink(f"{task['private']}/gone")
    kept, memory = buffer(64)
    # Put together here: the task's own text is in memory too, and would be found by any search.
    kept.raw = bytes(byte ^ 1 for byte in task["memory"]).ljust(64, b"\0")
    secret = os.open(f"{task['private']}/secret.txt", os.O_RDONLY)
    found = listen(task, secret) | {"pid": os.getpid(), "prey": prey, "prey_memory": address}
    fifos(task)
    made = objects(task)
    found |= {"memory": memory, "gone": gone}
    print(json.dumps(found), flush=True)
    select.select([sys.stdin], [], [])
    remove(made, task)
    print(json.dumps({"end": True}), flush=True)
