"""Start a command on a machine that allows no user namespaces: `no_namespaces.py COMMAND…`.

The limit is a real one, user.max_user_namespaces of a user namespace of our own, in which every
user is who they are outside.
"""

from __future__ import annotations

import ctypes
import os
import sys

_CLONE_NEWUSER = 0x10000000
_ALL = "0 0 4294967295"


def enter(limit: int) -> None:
    """Be in a new user namespace whose own limit of further ones is `limit`."""
    libc = ctypes.CDLL(None, use_errno=True)
    users, groups = os.geteuid(), os.getegid()
    ready, done = os.pipe(), os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        # Only from outside may more than one id be mapped.
        os.read(ready[0], 1)
        with open(f"/proc/{parent}/setgroups", "w", encoding="ascii") as file:
            file.write("allow" if users == 0 else "deny")
        for name, own in (("uid_map", users), ("gid_map", groups)):
            with open(f"/proc/{parent}/{name}", "w", encoding="ascii") as file:
                file.write(_ALL if users == 0 else f"{own} {own} 1")
        os.write(done[1], b"x")
        os._exit(0)
    if libc.unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready[1], b"x")
    os.read(done[0], 1)
    os.waitpid(child, 0)
    with open("/proc/sys/user/max_user_namespaces", "w", encoding="ascii") as file:
        file.write(str(limit))


if __name__ == "__main__":
    enter(0)
    os.execv(sys.argv[1], sys.argv[1:])
