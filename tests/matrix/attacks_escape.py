"""Attacks on processes, rights and the machine's settings; ways out to whoever listens outside.

Probes run inside, with `inside_kit` before them; `w["name"]` is a probe's own name, `w["mark"]`
what it leaves to be known by.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess

from tests.matrix.attack import arrives, hurts_prey, reaches, reveals, stays
from tests.matrix.inside_kit import (
    BROKE,
    Facts,
    HeldError,
    buffer,
    call,
    in_child,
    leave_behind,
    or_raise,
    read,
    same_again,
    write,
)


@hurts_prey
def kill_another(w: Facts) -> str:
    """Kill a process of the caller's."""
    os.kill(w["prey"][w["name"]], signal.SIGKILL)
    return BROKE


@hurts_prey
def stop_another(w: Facts) -> str:
    """Stop one."""
    os.kill(w["prey"][w["name"]], signal.SIGSTOP)
    return BROKE


@hurts_prey
def kill_by_descriptor(w: Facts) -> str:
    """Kill one through a descriptor of it."""
    call("pidfd_send_signal", call("pidfd_open", w["prey"][w["name"]], 0), 9, 0, 0)
    return BROKE


@hurts_prey
def kill_a_thread(w: Facts) -> str:
    """Kill one by the number of its thread."""
    call("tgkill", w["prey"][w["name"]], w["prey"][w["name"]], 9)
    return BROKE


@hurts_prey
def kill_by_queued_signal(w: Facts) -> str:
    """Send one a signal with a value."""
    words, address = buffer(128)
    words.raw = struct.pack("<iiiiii", 10, 0, -1, 0, os.getpid(), os.getuid()).ljust(128, b"\0")
    call("rt_sigqueueinfo", w["prey"][w["name"]], 10, address)
    return BROKE


@hurts_prey
def slow_another_down(w: Facts) -> str:
    """Lower one's priority."""
    os.setpriority(os.PRIO_PROCESS, w["prey"][w["name"]], 7)
    return BROKE


@reaches
def slow_down_who_reaps(w: Facts) -> str:
    """Set the priority of process 1, to what it is."""
    os.setpriority(os.PRIO_PROCESS, 1, os.getpriority(os.PRIO_PROCESS, 1))
    return BROKE


@hurts_prey
def starve_anothers_disk(w: Facts) -> str:
    """Lower one's priority at the disk."""
    call("ioprio_set", 1, w["prey"][w["name"]], 3 << 13)
    return BROKE


@hurts_prey
def limit_another(w: Facts) -> str:
    """Take one's open files away."""
    resource.prlimit(w["prey"][w["name"]], resource.RLIMIT_NOFILE, (3, 3))
    return BROKE


@hurts_prey
def move_another(w: Facts) -> str:
    """Bind one to a single processor."""
    os.sched_setaffinity(w["prey"][w["name"]], {min(os.sched_getaffinity(0))})
    return BROKE


@hurts_prey
def idle_another(w: Facts) -> str:
    """Let one run only when nobody else does."""
    os.sched_setscheduler(w["prey"][w["name"]], os.SCHED_IDLE, os.sched_param(0))
    return BROKE


@hurts_prey
def offer_another_to_the_killer(w: Facts) -> str:
    """Make one the first to go when memory runs out."""
    write(f"/proc/{w['prey'][w['name']]}/oom_score_adj", "1000")
    return BROKE


@hurts_prey
def write_anothers_memory(w: Facts) -> str:
    """Write into one's memory through /proc."""
    descriptor = os.open(f"/proc/{w['prey'][w['name']]}/mem", os.O_RDWR)
    os.pwrite(descriptor, b"changed", w["prey_memory"])
    return BROKE


@hurts_prey
def write_anothers_memory_by_call(w: Facts) -> str:
    """Write into one's memory with process_vm_writev."""
    text, here = buffer(8)
    text.raw = b"changed\0"
    own, own_address = buffer(16)
    own.raw = struct.pack("<QQ", here, 8)
    far, far_address = buffer(16)
    far.raw = struct.pack("<QQ", w["prey_memory"], 8)
    call("process_vm_writev", w["prey"][w["name"]], own_address, 1, far_address, 1, 0)
    return BROKE


@hurts_prey
def write_anothers_memory_as_debugger(w: Facts) -> str:
    """Attach to one as a debugger and write a word."""
    pid = w["prey"][w["name"]]
    call("ptrace", 16, pid, 0, 0)
    os.waitpid(pid, 0x40000000)
    call("ptrace", 5, pid, w["prey_memory"], 0x6465676E616863)
    call("ptrace", 17, pid, 0, 0)
    return BROKE


@stays
def outlive_as_daemon(w: Facts) -> str:
    """Outlive the run as a daemon: forked twice, in a session of its own."""
    leave_behind(w["mark"])
    return BROKE


@stays
def outlive_deaf(w: Facts) -> str:
    """Outlive it as one that ignores every signal it can."""
    for each in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(each, signal.SIG_IGN)
    leave_behind(w["mark"])
    return BROKE


@stays
def outlive_stopped(w: Facts) -> str:
    """Outlive it as a stopped process."""
    os.kill(leave_behind(w["mark"]), signal.SIGSTOP)
    return BROKE


@stays
def outlive_in_its_group(w: Facts) -> str:
    """Outlive it as one that was merely started in the background."""
    leave_behind(w["mark"], session=False)
    return BROKE


@arrives
def connect_to_abstract_socket(w: Facts) -> str:
    """Talk to a process outside over an abstract socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(w["abstract"].replace("@", "\0"))
        client.sendall(w["mark"].encode())
    return BROKE


@arrives
def send_to_abstract_socket(w: Facts) -> str:
    """Send it a datagram."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        place = w["abstract"].replace("@", "\0") + "-datagrams"
        client.sendto(w["mark"].encode(), place)
    return BROKE


@arrives
def connect_to_socket(w: Facts) -> str:
    """Talk to it over a socket in a folder of the caller's."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(w["socket"])
        client.sendall(w["mark"].encode())
    return BROKE


@arrives
def connect_to_socket_in_workspace(w: Facts) -> str:
    """Talk to it over a socket that lies in the workspace."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("socket")
        client.sendall(w["mark"].encode())
    return BROKE


@arrives
def connect_to_socket_in_tmp(w: Facts) -> str:
    """Talk to it over a socket that lies in /tmp."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(w["shared_socket"])
        client.sendall(w["mark"].encode())
    return BROKE


@reveals("secret")
def descriptor_over_socket(w: Facts) -> str:
    """Be handed an open file of the caller's over an abstract socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(w["abstract"].replace("@", "\0"))
        client.sendall(b"please")
        _, descriptors, _, _ = socket.recv_fds(client, 200, 1)
        return os.pread(descriptors[0], 4096, 0).decode()


@arrives
def connect_over_loopback(w: Facts) -> str:
    """Talk to it over the host's loopback."""
    with socket.create_connection(("127.0.0.1", w["tcp"]), 3) as client:
        client.sendall(w["mark"].encode())
    return BROKE


@arrives
def connect_over_loopback_6(w: Facts) -> str:
    """Talk to it over the host's IPv6 loopback."""
    with socket.create_connection(("::1", w["tcp6"]), 3) as client:
        client.sendall(w["mark"].encode())
    return BROKE


@arrives
def send_over_loopback(w: Facts) -> str:
    """Send it a datagram over the host's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(w["mark"].encode(), ("127.0.0.1", w["udp"]))
    return BROKE


@arrives
def write_to_fifo(w: Facts) -> str:
    """Write into a named pipe that it reads."""
    write(f"{w['private']}/fifo", w["mark"], os.O_WRONLY | os.O_NONBLOCK)
    return BROKE


@arrives
def write_to_fifo_in_workspace(w: Facts) -> str:
    """Write into one that lies in the workspace."""
    write("fifo", w["mark"], os.O_WRONLY | os.O_NONBLOCK)
    return BROKE


@arrives
def write_to_fifo_in_tmp(w: Facts) -> str:
    """Write into one that lies in /tmp."""
    path = f"/tmp/{w['token']}-fifo"
    write(path, w["mark"], os.O_WRONLY | os.O_NONBLOCK)
    return BROKE


@arrives
def send_by_message_queue(w: Facts) -> str:
    """Send it a System V message."""
    text = w["mark"].encode()
    message = (2).to_bytes(8, "little") + text
    call("msgsnd", call("msgget", w["key"], 0), message, len(text), 0)
    return BROKE


@arrives
def send_by_posix_queue(w: Facts) -> str:
    """Send it a POSIX message."""
    text = w["mark"].encode()
    queue = call("mq_open", w["abstract"].lstrip("@").encode() + b"\0", 0o4001, 0, 0)
    call("mq_timedsend", queue, text, len(text), 0, 0)
    return BROKE


@reaches
def borrow_an_id(w: Facts) -> str:
    """Run a program that lends the id of its owner, from the workspace."""
    done = subprocess.run(["./set-id", "-u"], capture_output=True, text=True, check=True)
    return BROKE if int(done.stdout) == w.get("lent", -1) else done.stdout


@reaches
def have_rights(w: Facts) -> str:
    """Have any capability in force."""
    line = next(each for each in read("/proc/self/status").splitlines() if "CapEff" in each)
    if int(line.split()[1], 16) == 0:
        raise HeldError(line)
    return BROKE


@reaches
def become_root(w: Facts) -> str:
    """Become root after being somebody else."""

    def change() -> None:
        os.setresuid(4242, 4242, 0)
        os.setresuid(0, 0, 0)

    return or_raise(in_child(change))


@reaches
def join_groups(w: Facts) -> str:
    """Join the groups that own disks and logs."""
    return or_raise(in_child(lambda: os.setgroups([4, 6])))


@reaches
def own_user_namespace(w: Facts) -> str:
    """Make a user namespace of its own, in which it has every right."""
    return or_raise(in_child(lambda: call("unshare", 1 << 28)))


@reaches
def own_user_namespace_by_clone(w: Facts) -> str:
    """Make one by starting a process in it."""
    child = call("clone", 17 | 1 << 28, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return BROKE


@reaches
def mount_in_own_namespace(w: Facts) -> str:
    """Mount something in namespaces of its own."""

    def nested() -> None:
        call("unshare", 1 << 28 | 1 << 17)
        call("mount", b"none\0", b"/tmp\0", b"tmpfs\0", 0, None)

    return or_raise(in_child(nested))


@reaches
def join_anothers_namespace(w: Facts) -> str:
    """Join the namespaces of a process outside."""

    def join() -> None:
        for name in ("ipc", "uts", "net"):
            call("setns", os.open(f"/proc/{w['witness']}/ns/{name}", os.O_RDONLY), 0)

    return or_raise(in_child(join))


@reaches
def another_core_pattern(w: Facts) -> str:
    """Write the program that the kernel runs, as root, when something crashes (the same again)."""
    return same_again("/proc/sys/kernel/core_pattern")


@reaches
def setting_of_memory(w: Facts) -> str:
    """Write a setting of the machine's memory (the same again)."""
    return same_again("/proc/sys/vm/overcommit_memory")


@reaches
def setting_of_devices(w: Facts) -> str:
    """Write a setting below /sys (the same again)."""
    return same_again("/sys/kernel/mm/transparent_hugepage/enabled")


@reaches
def host_name(w: Facts) -> str:
    """Rename the machine (to what it is called already)."""
    name = os.uname().nodename.encode()
    call("sethostname", name, len(name))
    return BROKE


@reaches
def domain_name(w: Facts) -> str:
    """Give it another domain (the one it has)."""
    name = read("/proc/sys/kernel/domainname").strip().encode()
    call("setdomainname", name, len(name))
    return BROKE


@reaches
def clock(w: Facts) -> str:
    """Set the speed of the clock (to what it is already)."""
    words, address = buffer(256)
    call("adjtimex", address)
    # ADJ_TICK
    words.raw = struct.pack("<I", 0x4000) + words.raw[4:]
    call("adjtimex", address)
    return BROKE


@reaches
def leave_its_group(w: Facts) -> str:
    """Move itself to the topmost control group, whose limits are none."""
    for path in ("/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"):
        if os.path.exists(path):
            return or_raise(in_child(lambda path=path: write(path, "0")))  # type: ignore[misc]
    raise HeldError("no control groups to be seen")


@reaches
def mount_control_groups(w: Facts) -> str:
    """Mount control groups afresh and write the program that root runs when one empties."""
    os.makedirs("groups")
    try:
        call("mount", b"none\0", b"groups\0", b"cgroup\0", 0, b"pids\0")
        try:
            return same_again("groups/release_agent")
        finally:
            call("umount2", b"groups\0", 2)
    finally:
        os.rmdir("groups")


@reaches
def reboot(w: Facts) -> str:
    """Reach the call that reboots (with a number that it refuses)."""
    try:
        call("reboot", 0, 0, 0, 0)
    except OSError as error:
        if error.errno == 22:
            return BROKE
        raise
    return BROKE


@reaches
def swap(w: Facts) -> str:
    """Give the machine a file of its own to swap to (one that it refuses)."""
    write("swap", "", os.O_WRONLY | os.O_CREAT)
    try:
        call("swapon", b"swap\0", 0)
    except OSError as error:
        if error.errno == 22:
            return BROKE
        raise
    return BROKE


@reaches
def accounting(w: Facts) -> str:
    """Write an account of all programs of the machine into a file (one that is not there)."""
    try:
        call("acct", b"not/there\0")
    except OSError as error:
        if error.errno == 2:
            return BROKE
        raise
    return BROKE


@reaches
def real_time(w: Facts) -> str:
    """Run before everybody else on the machine."""
    return or_raise(in_child(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))))


@reaches
def higher_priority(w: Facts) -> str:
    """Raise its own priority."""
    return or_raise(in_child(lambda: os.setpriority(os.PRIO_PROCESS, 0, -5)))


@reaches
def first_at_the_disk(w: Facts) -> str:
    """Be served before everybody else at the disk."""
    return or_raise(in_child(lambda: call("ioprio_set", 1, 0, 1 << 13)))
