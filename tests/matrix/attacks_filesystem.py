"""Attacks on files: the caller's own, his workspace, and the system's.

Probes run inside, with `inside_kit` before them; `w["name"]` is a probe's own name, `w["mark"]`
what it leaves to be known by.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct

from tests.matrix.attack import changes_files, changes_work, leaves, reaches, reveals
from tests.matrix.inside_kit import (
    BROKE,
    Facts,
    HeldError,
    buffer,
    call,
    in_child,
    read,
    write,
)


@reveals("secret")
def read_by_path(w: Facts) -> str:
    """Read a secret of the caller by its path."""
    return read(w["secret"])


@reveals("secret")
def read_by_link(w: Facts) -> str:
    """Read it through a link that lies in the workspace."""
    return read("link")


@reveals("secret")
def read_by_relative_link(w: Facts) -> str:
    """Read it through a link that leads up and out of the workspace."""
    return read("relative")


@reveals("secret")
def read_by_linked_folder(w: Facts) -> str:
    """Read it in a folder that a link in the workspace leads to."""
    return read("to-private/secret.txt")


@reveals("secret")
def read_by_new_link(w: Facts) -> str:
    """Make a link to it in the workspace and read that."""
    os.symlink(w["secret"], "new-link")
    return read("new-link")


@reveals("secret")
def read_by_link_of_links(w: Facts) -> str:
    """Read it through a chain of links, the last of them in /tmp."""
    os.symlink(w["private"], f"/tmp/{w['token']}-chain")
    os.symlink(f"/tmp/{w['token']}-chain/secret.txt", "chain")
    return read("chain")


@reveals("secret")
def read_upwards(w: Facts) -> str:
    """Read it by going up from the workspace, folder by folder, by descriptor."""
    folder = os.open(".", os.O_RDONLY)
    for _ in range(30):
        folder = os.open("..", os.O_RDONLY, dir_fd=folder)
    return os.read(os.open(w["secret"].lstrip("/"), os.O_RDONLY, dir_fd=folder), 4096).decode()


@reveals("secret")
def read_by_own_root(w: Facts) -> str:
    """Read it below /proc/self/root."""
    return read(f"/proc/self/root{w['secret']}")


@reveals("secret")
def read_by_root_of_another(w: Facts) -> str:
    """Read it below the root of any other process."""
    for pid in [1, os.getppid(), *(int(each) for each in os.listdir("/proc") if each.isdigit())]:
        try:
            return read(f"/proc/{pid}/root{w['secret']}")
        except OSError:
            continue
    raise HeldError("no process leads there")


@reveals("secret")
def read_by_own_descriptors(w: Facts) -> str:
    """Read it beneath every descriptor that stands open."""
    for name in os.listdir("/proc/self/fd"):
        for path in (f"/proc/self/fd/{name}/secret.txt", f"/proc/self/fd/{name}"):
            try:
                if not stat.S_ISFIFO(os.stat(path).st_mode) and (found := read(path)):
                    return found
            except OSError:
                continue
    raise HeldError("no descriptor leads there")


@reveals("secret")
def hard_link(w: Facts) -> str:
    """Make it a second name in the workspace and read that."""
    os.link(w["secret"], "hard-link")
    return read("hard-link")


@reveals("secret")
def open_by_handle(w: Facts) -> str:
    """Read it by the number of its inode, with no path at all."""
    name, address = buffer(8 + 128)
    name.raw = struct.pack("<Ii", 128, 0) + bytes(128)
    _, place = buffer(8)
    call("name_to_handle_at", -100, w["secret"].encode() + b"\0", address, place, 0)
    descriptor = call("open_by_handle_at", os.open(w["private"], os.O_RDONLY), address, os.O_RDONLY)
    return os.read(descriptor, 4096).decode()


@reveals("secret")
def out_of_a_nested_root(w: Facts) -> str:
    """Change the root to a folder below, and walk up past it."""
    os.mkdir("jail")
    outside = os.open("/", os.O_RDONLY)
    os.chroot("jail")
    os.fchdir(outside)
    for _ in range(30):
        os.chdir("..")
    return read(w["secret"].lstrip("/"))


@reveals("secret")
def copied_by_a_system_program(w: Facts) -> str:
    """Let a program of the system copy it to the workspace."""
    if code := os.system(f"cp {w['secret']} copy 2>/dev/null"):
        raise HeldError(f"cp ended with {code >> 8}")
    return read("copy")


@changes_files
def write_by_path(w: Facts) -> str:
    """Write to a file of the caller's."""
    write(f"{w['private']}/{w['name']}/file", "changed\n")
    return BROKE


@changes_files
def write_by_link(w: Facts) -> str:
    """Write to it through a folder's link in the workspace."""
    write(f"to-private/{w['name']}/file", "changed\n")
    return BROKE


@changes_files
def append_to_file(w: Facts) -> str:
    """Append a line to it."""
    write(f"{w['private']}/{w['name']}/file", "more\n", os.O_WRONLY | os.O_APPEND)
    return BROKE


@changes_files
def truncate_file(w: Facts) -> str:
    """Cut it to nothing."""
    os.truncate(f"{w['private']}/{w['name']}/file", 0)
    return BROKE


@changes_files
def delete_file(w: Facts) -> str:
    """Delete it."""
    os.unlink(f"{w['private']}/{w['name']}/file")
    return BROKE


@changes_files
def move_file(w: Facts) -> str:
    """Move it into the workspace."""
    os.rename(f"{w['private']}/{w['name']}/file", "moved")
    return BROKE


@changes_files
def exchange_file(w: Facts) -> str:
    """Put a file of the workspace in its place."""
    write("mine", "mine\n", os.O_WRONLY | os.O_CREAT)
    os.rename("mine", f"{w['private']}/{w['name']}/file")
    return BROKE


@changes_files
def change_mode(w: Facts) -> str:
    """Open it to everybody."""
    os.chmod(f"{w['private']}/{w['name']}/file", 0o666)
    return BROKE


@changes_files
def change_time(w: Facts) -> str:
    """Change when it was changed."""
    os.utime(f"{w['private']}/{w['name']}/file", ns=(1, 1))
    return BROKE


@changes_files
def change_attribute(w: Facts) -> str:
    """Give it an extended attribute."""
    os.setxattr(f"{w['private']}/{w['name']}/file", "user.mark", b"1")
    return BROKE


@changes_files
def give_away(w: Facts) -> str:
    """Make it somebody else's."""
    os.chown(f"{w['private']}/{w['name']}/file", 12345, -1)
    return BROKE


@changes_files
def new_file(w: Facts) -> str:
    """Make a new file beside it."""
    write(f"{w['private']}/{w['name']}/new", "new\n", os.O_WRONLY | os.O_CREAT)
    return BROKE


@changes_files
def new_socket(w: Facts) -> str:
    """Make a socket beside it."""
    socket.socket(socket.AF_UNIX).bind(f"{w['private']}/{w['name']}/socket")
    return BROKE


@changes_work
def change_workspace(w: Facts) -> str:
    """Change a file of the workspace's own folder on the host."""
    write(f"{w['name']}/file", "changed\n")
    return BROKE


@changes_work
def delete_in_workspace(w: Facts) -> str:
    """Delete one there."""
    os.unlink(f"{w['name']}/file")
    return BROKE


@changes_work
def plant_a_hook(w: Facts) -> str:
    """Plant something there that the caller's git would run."""
    os.makedirs(f"{w['name']}/.git/hooks")
    write(f"{w['name']}/.git/hooks/post-checkout", "#!/bin/sh\n", os.O_WRONLY | os.O_CREAT)
    os.chmod(f"{w['name']}/.git/hooks/post-checkout", 0o755)
    return BROKE


@changes_work
def leave_a_link(w: Facts) -> str:
    """Leave a link there in place of a file, for the caller to write through."""
    os.unlink(f"{w['name']}/file")
    os.symlink("/etc/passwd", f"{w['name']}/file")
    return BROKE


@changes_work
def leave_a_set_id_file(w: Facts) -> str:
    """Leave a file there that lends the id of who runs it."""
    os.chmod(f"{w['name']}/file", 0o4755)
    return BROKE


@changes_work
def leave_a_folder_nobody_enters(w: Facts) -> str:
    """Leave a folder there that the caller cannot remove."""
    os.makedirs(f"{w['name']}/closed/inner")
    os.chmod(f"{w['name']}/closed", 0)
    return BROKE


@changes_work
def leave_a_fifo(w: Facts) -> str:
    """Leave a named pipe there, at which readers wait for ever."""
    os.mkfifo(f"{w['name']}/fifo")
    return BROKE


@changes_work
def leave_a_core(w: Facts) -> str:
    """Leave an image of memory there by crashing."""
    import resource

    def crash() -> None:
        os.chdir(w["name"])
        resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
        os.abort()

    in_child(crash)
    return BROKE


@leaves("/tmp/{token}-in-tmp")
def leave_in_tmp(w: Facts) -> str:
    """Leave a file in the host's /tmp."""
    write(f"/tmp/{w['token']}-in-tmp", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@leaves("/var/tmp/{token}-in-var-tmp")
def leave_in_var_tmp(w: Facts) -> str:
    """Leave a file in the host's /var/tmp."""
    write(f"/var/tmp/{w['token']}-in-var-tmp", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@leaves("/dev/shm/{token}-in-shm")
def leave_in_shared_memory(w: Facts) -> str:
    """Leave a file in the host's /dev/shm."""
    write(f"/dev/shm/{w['token']}-in-shm", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@leaves("/usr/lib/{token}-in-usr")
def leave_in_usr(w: Facts) -> str:
    """Leave a file among the system's programs."""
    write(f"/usr/lib/{w['token']}-in-usr", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@leaves("/etc/{token}-in-etc")
def leave_in_etc(w: Facts) -> str:
    """Leave a file among the system's settings."""
    write(f"/etc/{w['token']}-in-etc", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@leaves("/run/{token}-in-run")
def leave_in_run(w: Facts) -> str:
    """Leave a file in /run."""
    write(f"/run/{w['token']}-in-run", "left", os.O_WRONLY | os.O_CREAT)
    return BROKE


@reaches
def append_only_flag(w: Facts) -> str:
    """Mark a file so that not even its owner can delete it, and unmark it."""
    descriptor = os.open("flagged", os.O_RDWR | os.O_CREAT)
    word = bytearray(fcntl.ioctl(descriptor, 0x80086601, bytes(8)))
    for flag in (0x20, 0):
        word[0] = word[0] & ~0x20 | flag
        fcntl.ioctl(descriptor, 0x40086602, bytes(word))
    return BROKE


@reaches
def watch_the_system(w: Facts) -> str:
    """Watch the system's programs and see which ones others start."""
    queue = call("inotify_init1", 0o4000)
    call("inotify_add_watch", queue, b"/usr/bin\0", 0x20)
    os.close(os.open("/usr/bin/env", os.O_RDONLY))
    return BROKE if b"env" in os.read(queue, 4096) else ""


@reaches
def hold_up_readers(w: Facts) -> str:
    """Take a lease on a file, so that others who open it wait."""
    os.close(os.open("leased", os.O_WRONLY | os.O_CREAT))
    descriptor = os.open("leased", os.O_RDONLY)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    return BROKE


@reaches
def remount_writable(w: Facts) -> str:
    """Mount the system's folders once more, for writing."""
    call("mount", b"/usr\0", b"/usr\0", None, 0x1000, None)
    call("mount", None, b"/usr\0", None, 0x1020, None)
    call("umount2", b"/usr\0", 2)
    return BROKE


@reaches
def mount_over_the_system(w: Facts) -> str:
    """Mount a folder of its own over one of the system's."""
    os.makedirs("over")
    call("mount", b"over\0", b"/usr/games\0", None, 0x1000, None)
    call("umount2", b"/usr/games\0", 2)
    return BROKE
