"""Attacks of one tenant on another: the first plants a canary, the second hunts for it.

Both run at once, for the same user, on the same workspace, in sandboxes of their own. `w["canary"]`
and `w["number"]` are told to the first alone. What it makes is kept until the second is done.
Probes run inside, with `inside_kit` before them; `w["name"]` is the pair's name.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import time

from tests.matrix.attack import accepted, pair
from tests.matrix.inside_kit import (
    BROKE,
    KEPT,
    LIBC,
    UNDO,
    Facts,
    answer_datagram,
    ask,
    buffer,
    call,
    everybody,
    leave_behind,
    link_of,
    lock_bits,
    locked_bits,
    of_everybody,
    read,
    read_key,
    serve,
    sorted_programs,
    start_child,
    write_new,
)


def in_tmp(w: Facts) -> str:
    write_new(f"/tmp/{w['mark']}", w["canary"])
    return BROKE


@pair(in_tmp)
def file_in_tmp(w: Facts) -> str:
    """A file in /tmp."""
    return read(f"/tmp/{w['mark']}")


def in_var_tmp(w: Facts) -> str:
    write_new(f"/var/tmp/{w['mark']}", w["canary"])
    return BROKE


@pair(in_var_tmp)
def file_in_var_tmp(w: Facts) -> str:
    """A file in /var/tmp."""
    return read(f"/var/tmp/{w['mark']}")


def in_shm(w: Facts) -> str:
    write_new(f"/dev/shm/{w['mark']}", w["canary"])
    return BROKE


@pair(in_shm)
def file_in_shared_memory(w: Facts) -> str:
    """Shared memory of a name, in /dev/shm."""
    return read(f"/dev/shm/{w['mark']}")


def in_workspace(w: Facts) -> str:
    write_new(w["name"], w["canary"])
    return BROKE


@pair(in_workspace)
def file_in_workspace(w: Facts) -> str:
    """A new file in the workspace that both were given."""
    return read(w["name"])


def name_in_workspace(w: Facts) -> str:
    os.mkdir(w["canary"])
    return BROKE


@pair(name_in_workspace)
def name_of_folder(w: Facts) -> str:
    """A folder's name there."""
    return " ".join(os.listdir("."))


def time_in_workspace(w: Facts) -> str:
    os.utime("dated", ns=(1, int(w["number"]) * 10**9))
    return BROKE


@pair(time_in_workspace, "number")
def time_of_file(w: Facts) -> str:
    """The time at which a file there was changed."""
    return str(int(os.stat("dated").st_mtime))


def attribute_in_workspace(w: Facts) -> str:
    os.setxattr("plain", "user.note", w["canary"].encode())
    return BROKE


@pair(attribute_in_workspace)
def attribute_of_file(w: Facts) -> str:
    """An attribute of a file there."""
    return os.getxattr("plain", "user.note").decode()


def size_in_workspace(w: Facts) -> str:
    os.truncate("plain", int(w["number"]))
    return BROKE


@pair(size_in_workspace, "number")
def size_of_file(w: Facts) -> str:
    """The size of a file there."""
    return str(os.stat("plain").st_size)


def lock_in_workspace(w: Facts) -> str:
    KEPT.append(lock_bits("plain", int(w["number"])))
    return BROKE


@pair(lock_in_workspace, "number")
def locks_of_file(w: Facts) -> str:
    """Locks on a file there, a byte for each bit."""
    return str(locked_bits("plain"))


def lock_in_system(w: Facts) -> str:
    KEPT.append(lock_bits("/usr/bin/env", int(w["number"])))
    return BROKE


@pair(lock_in_system, "number")
def locks_of_system_file(w: Facts) -> str:
    """Locks on a file of the system's, which both may read."""
    return str(locked_bits("/usr/bin/env"))


def flock_in_system(w: Facts) -> str:
    for bit in range(16):
        if int(w["number"]) >> bit & 1:
            descriptor = os.open(sorted_programs()[bit], os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            KEPT.append(descriptor)
    return BROKE


@pair(flock_in_system, "number")
def whole_locks_of_system_files(w: Facts) -> str:
    """Locks on whole files of the system's, a file for each bit."""
    found = 0
    for bit, path in enumerate(sorted_programs()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found |= 1 << bit
        os.close(descriptor)
    return str(found)


def segment(w: Facts) -> str:
    text = w["canary"].encode()
    made = call("shmget", w["pair_key"], 4096, 0o1666)
    place = call("shmat", made, 0, 0)
    ctypes.memmove(place, text, len(text))
    UNDO.append(lambda: call("shmctl", made, 0, 0))
    return BROKE


@pair(segment)
def segment_of_shared_memory(w: Facts) -> str:
    """A System V segment of shared memory."""
    place = call("shmat", call("shmget", w["pair_key"], 0, 0), 0, 0)
    return ctypes.string_at(place, 64).decode("latin-1")


def message(w: Facts) -> str:
    text = w["canary"].encode()
    queue = call("msgget", w["pair_key"], 0o1666)
    call("msgsnd", queue, (1).to_bytes(8, "little") + text, len(text), 0)
    UNDO.append(lambda: LIBC.msgctl(queue, 0, 0))
    return BROKE


@pair(message)
def message_in_queue(w: Facts) -> str:
    """A System V message."""
    text, address = buffer(256)
    call("msgrcv", call("msgget", w["pair_key"], 0), address, 200, 0, 0o4000)
    return str(text.raw.decode("latin-1"))


def semaphore(w: Facts) -> str:
    made = call("semget", w["pair_key"], 1, 0o1666)
    call("semctl", made, 0, 16, int(w["number"]))
    UNDO.append(lambda: call("semctl", made, 0, 0, 0))
    return BROKE


@pair(semaphore, "number")
def value_of_semaphore(w: Facts) -> str:
    """The value of a System V semaphore."""
    return str(call("semctl", call("semget", w["pair_key"], 0, 0), 0, 12, 0))


def posix_message(w: Facts) -> str:
    text = w["canary"].encode()
    name = w["mark"].encode() + b"\0"
    queue = call("mq_open", name, 0o102, 0o666, 0)
    call("mq_timedsend", queue, text, len(text), 0, 0)
    UNDO.append(lambda: LIBC.mq_unlink(b"/" + name))
    return BROKE


@pair(posix_message)
def message_in_posix_queue(w: Facts) -> str:
    """A POSIX message."""
    text, address = buffer(8192)
    queue = call("mq_open", w["mark"].encode() + b"\0", 0o4000, 0, 0)
    call("mq_timedreceive", queue, address, 8192, 0, 0)
    return str(text.raw.decode("latin-1"))


def key_of_user(w: Facts) -> str:
    text = w["canary"].encode()
    name = w["mark"].encode() + b"\0"
    key = call("add_key", b"user\0", name, text, len(text), -4)
    UNDO.append(lambda: call("keyctl", 9, key, -4))
    return BROKE


@pair(key_of_user)
def key_in_ring_of_user(w: Facts) -> str:
    """A key in the user's keyring."""
    return read_key(-4, w["mark"])


def key_of_session(w: Facts) -> str:
    text = w["canary"].encode()
    name = w["mark"].encode() + b"\0"
    key = call("add_key", b"user\0", name, text, len(text), -5)
    UNDO.append(lambda: call("keyctl", 9, key, -5))
    return BROKE


@pair(key_of_session)
def key_in_ring_of_session(w: Facts) -> str:
    """A key in the keyring of the user's sessions."""
    return read_key(-5, w["mark"])


def listen_abstract(w: Facts) -> str:
    serve(socket.socket(socket.AF_UNIX), f"\0{w['mark']}", w["canary"])
    return BROKE


@pair(listen_abstract)
def abstract_socket(w: Facts) -> str:
    """An abstract socket."""
    return ask(socket.socket(socket.AF_UNIX), f"\0{w['mark']}")


def listen_in_tmp(w: Facts) -> str:
    serve(socket.socket(socket.AF_UNIX), f"/tmp/{w['mark']}", w["canary"])
    return BROKE


@pair(listen_in_tmp)
def socket_in_tmp(w: Facts) -> str:
    """A socket in /tmp."""
    return ask(socket.socket(socket.AF_UNIX), f"/tmp/{w['mark']}")


def listen_in_workspace(w: Facts) -> str:
    serve(socket.socket(socket.AF_UNIX), w["name"], w["canary"])
    return BROKE


@pair(listen_in_workspace)
def socket_in_workspace(w: Facts) -> str:
    """A socket in the workspace."""
    return ask(socket.socket(socket.AF_UNIX), w["name"])


def listen_on_loopback(w: Facts) -> str:
    serve(socket.socket(), ("127.0.0.1", w["ports"][0]), w["canary"])
    return BROKE


@pair(listen_on_loopback)
def port_of_loopback(w: Facts) -> str:
    """A port of loopback."""
    return ask(socket.socket(), ("127.0.0.1", w["ports"][0]))


def listen_on_loopback_6(w: Facts) -> str:
    serve(socket.socket(socket.AF_INET6), ("::1", w["ports"][1]), w["canary"])
    return BROKE


@pair(listen_on_loopback_6)
def port_of_loopback_6(w: Facts) -> str:
    """A port of IPv6 loopback."""
    return ask(socket.socket(socket.AF_INET6), ("::1", w["ports"][1]))


def answer_datagrams(w: Facts) -> str:
    answer_datagram(("127.0.0.1", w["ports"][2]), w["canary"])
    return BROKE


@pair(answer_datagrams)
def datagrams_on_loopback(w: Facts) -> str:
    """Datagrams on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect(("127.0.0.1", w["ports"][2]))
        client.send(b"?")
        return client.recv(200).decode()


def pipe_in_tmp(w: Facts) -> str:
    os.mkfifo(path := f"/tmp/{w['mark']}")
    KEPT.append(descriptor := os.open(path, os.O_RDWR))
    os.write(descriptor, w["canary"].encode())
    return BROKE


@pair(pipe_in_tmp)
def named_pipe_in_tmp(w: Facts) -> str:
    """A named pipe in /tmp."""
    path = f"/tmp/{w['mark']}"
    return os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 200).decode()


def pipe_in_workspace(w: Facts) -> str:
    # Made by the caller, and in both workspaces.
    KEPT.append(descriptor := os.open("shared-fifo", os.O_RDWR))
    os.write(descriptor, w["canary"].encode())
    return BROKE


@pair(pipe_in_workspace)
def named_pipe_in_workspace(w: Facts) -> str:
    """A named pipe that the caller left in the workspace."""
    return os.read(os.open("shared-fifo", os.O_RDONLY | os.O_NONBLOCK), 200).decode()


def be_called(w: Facts) -> str:
    leave_behind(f"{w['token']}-{w['canary']}")
    return BROKE


@pair(be_called)
def arguments_of_process(w: Facts) -> str:
    """The arguments of a process."""
    return of_everybody("cmdline")


def have_an_environment(w: Facts) -> str:
    os.environ["SECRET"] = w["canary"]
    leave_behind(f"{w['token']}-environment")
    return BROKE


@pair(have_an_environment)
def environment_of_process(w: Facts) -> str:
    """Its environment."""
    return of_everybody("environ")


def have_a_name(w: Facts) -> str:
    LIBC.prctl(15, w["end"].encode(), 0, 0, 0)
    return BROKE


@pair(have_a_name, "end")
def name_of_process(w: Facts) -> str:
    """Its name."""
    return of_everybody("comm")


def keep_a_file_open(w: Facts) -> str:
    path = f"/tmp/{w['mark']}"
    KEPT.append(descriptor := os.open(path, os.O_RDWR | os.O_CREAT))
    os.unlink(path)
    os.write(descriptor, w["canary"].encode())
    return BROKE


@pair(keep_a_file_open)
def deleted_file_of_process(w: Facts) -> str:
    """A deleted file that it has open."""
    found = []
    for pid in everybody():
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            if w["name"] in (link := link_of(f"/proc/{pid}/fd/{name}")) and "deleted" in link:
                found.append(read(f"/proc/{pid}/fd/{name}"))
    return " ".join(found)


def keep_in_memory(w: Facts) -> str:
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.write(w["canary"].encode())
    KEPT.append(page)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    write_new(f"/tmp/{w['mark']}", f"{os.getpid()} {place}")
    return BROKE


@pair(keep_in_memory)
def memory_of_process(w: Facts) -> str:
    """Its memory, where it says itself that it lies."""
    pid, place = read(f"/tmp/{w['mark']}").split()
    return os.pread(os.open(f"/proc/{pid}/mem", os.O_RDONLY), 64, int(place)).decode("latin-1")


def queue_signals(w: Facts) -> str:
    def wait() -> None:
        LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, {40})
        words, address = buffer(128)
        words.raw = struct.pack("<iiiiii", 40, 0, -1, 0, os.getpid(), os.getuid()).ljust(128, b"\0")
        for _ in range(int(w["small"].strip("<>"))):
            call("rt_sigqueueinfo", os.getpid(), 40, address)
        os.write(into, b"x")
        time.sleep(60)

    out, into = os.pipe()
    # Not here: other threads would take them.
    child = start_child(wait)
    UNDO.append(lambda: os.kill(child, signal.SIGKILL))
    os.read(out, 1)
    return BROKE


@pair(queue_signals, "small")
def count_of_signals(w: Facts) -> str:
    """How many signals wait, which the kernel counts for each user."""
    line = next(each for each in read("/proc/self/status").splitlines() if "SigQ" in each)
    return f"<{line.split()[1].split('/')[0]}>"


_SHARED = "both see the system's own files, and a lock needs no more than to read one"
locks_of_system_file = accepted(locks_of_system_file, _SHARED)
whole_locks_of_system_files = accepted(whole_locks_of_system_files, _SHARED)
