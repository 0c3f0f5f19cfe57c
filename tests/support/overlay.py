"""Leave something behind in a real overlay, as a program in its workspace does.

Started by `unshare` in namespaces of its own: mounts a capped tmpfs, an overlay of it over a lower
folder, runs a shell script in the merged folder, and hands the upper folder's descriptor over. When
it has ended, the mounts are gone and only that descriptor still leads to the files.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

BYTES, INODES = "64m", "20000"


def leave(lower: Path, script: str) -> int:
    """Run a script over `lower`; gives the descriptor of the upper folder it left.

    Raises:
        subprocess.CalledProcessError: the overlay could not be made, or the script failed.
    """
    ours, theirs = socket.socketpair()
    namespaces = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    with ours, theirs:
        subprocess.run(
            ["unshare", *namespaces, sys.executable, "-P", __file__, str(theirs.fileno())],
            input=f"{lower}\n{script}".encode(),
            pass_fds=[theirs.fileno()],
            check=True,
            capture_output=True,
        )
        _, messages, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
    return int.from_bytes(messages[0][2][:4], sys.byteorder)


def _inside(channel: int) -> None:
    lower, script = sys.stdin.read().split("\n", 1)
    base = tempfile.mkdtemp()
    command = ["mount", "-t", "tmpfs", "-o", f"size={BYTES},nr_inodes={INODES}", "tmpfs", base]
    subprocess.run(command, check=True)
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{base}/{name}")
    options = f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work,userxattr"
    command = ["mount", "-t", "overlay", "-o", options, "overlay", f"{base}/merged"]
    subprocess.run(command, check=True)
    subprocess.run(["bash", "-ec", script], cwd=f"{base}/merged", check=True)
    subprocess.run(["umount", f"{base}/merged"], check=True)
    upper = os.open(f"{base}/upper", os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(fileno=channel) as there:
        there.sendmsg(
            [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [upper]).tobytes())]
        )
    os.chdir("/")
    subprocess.run(["umount", "-l", base], check=True)
    os.rmdir(base)


if __name__ == "__main__":
    _inside(int(sys.argv[1]))
