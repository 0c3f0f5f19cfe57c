"""Run one program behind the real walls, with nothing around it: pipes, a wait, an answer.

`run` may be called from a test; `python walls.py` reads a description (JSON) on stdin and prints
what came of it, so that a test can have another user, or a supervisor to kill.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from beddel_cli.process.launch import ENDED, FAULT, NOT_STARTED, STARTED, Launcher, Observed
from beddel_cli.process.program import Mount, Program, Walls

MIB = 1 << 20
ENVIRONMENT = (("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8"))


@dataclass(frozen=True, slots=True)
class Behind:
    """What came of a program: bytes it wrote, exit code (minus a signal), what was said."""

    walls: Walls
    observed: Observed
    stdout: bytes = b""
    stderr: bytes = b""
    code: int | None = None
    start_errno: int | None = None
    fault: str | None = None
    written: dict[str, bytes] = field(default_factory=dict)


def mount(source: str, target: str, *, writable: bool = False) -> Mount:
    """Open a folder or file as the supervisor would."""
    source = os.path.realpath(source)
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    return Mount(source, descriptor, target, writable, os.path.isdir(source))


def program(arguments: Sequence[str], **changes: Any) -> Program:
    """Describe a program with roomy limits."""
    described: dict[str, Any] = {
        "arguments": tuple(arguments),
        "environment": ENVIRONMENT,
        "workspace": None,
        "workspace_target": "/workspace",
        "workspace_writable": True,
        "mounts": (),
        "terminal": None,
        "memory_bytes": 256 * MIB,
        "cpu_ns": 20_000_000_000,
        "processes": 64,
        "disk_bytes": 16 * MIB,
        "inodes": 1000,
        "open_files": 256,
    }
    return Program(**described | changes)


def run(
    arguments: Sequence[str], *, stdin: bytes = b"", seconds: float = 20, **changes: Any
) -> Behind:
    """Run a program to its end."""
    launcher = Launcher.start()
    inputs, outputs, errors = os.pipe(), os.pipe(), os.pipe()
    counts = changes.pop("counts_memory", True)
    described = program(arguments, **changes)
    try:
        walls = launcher.prepare(
            described, (inputs[0], outputs[1], errors[1]), counts_memory=counts
        )
        for descriptor in (inputs[0], outputs[1], errors[1]):
            os.close(descriptor)
        observed = launcher.observe()
        if walls.failed_step is not None:
            os.close(inputs[1])
            return Behind(walls, observed)
        launcher.go()
        os.write(inputs[1], stdin)
        os.close(inputs[1])
        streams = [outputs[0], errors[0]]
        if launcher.terminal is not None:
            streams.append(launcher.terminal)
        read, event = _relay(launcher, streams, seconds)
        launcher.finish()
        written = _files(launcher.upper) if launcher.upper is not None else {}
        return Behind(
            walls,
            observed,
            stdout=read[outputs[0]] + read.get(launcher.terminal or -1, b""),
            stderr=read[errors[0]],
            code=os.waitstatus_to_exitcode(event.status) if event and event.kind == ENDED else None,
            start_errno=event.errno if event and event.kind == NOT_STARTED else None,
            fault=event.detail if event and event.kind == FAULT else None,
            written=written,
        )
    finally:
        launcher.finish()
        launcher.close()
        for descriptor in (outputs[0], errors[0]):
            os.close(descriptor)
        for each in (described.workspace, *described.mounts):
            if each is not None:
                os.close(each.descriptor)


def _relay(launcher: Launcher, streams: list[int], seconds: float) -> tuple[dict[int, bytes], Any]:
    deadline = time.monotonic() + seconds
    read = dict.fromkeys(streams, b"")
    open_streams = set(streams)
    last = None
    poller = select.poll()
    for descriptor in (*streams, launcher.events):
        poller.register(descriptor, select.POLLIN)
    dead = False
    while open_streams or not dead:
        if time.monotonic() > deadline:
            launcher.kill()
            raise AssertionError(f"still running after {seconds} s: {read!r}")
        for descriptor, _ in poller.poll(100):
            if descriptor == launcher.events:
                event = launcher.next_event()
                if event is None:
                    dead = True
                    poller.unregister(descriptor)
                elif event.kind != STARTED:
                    last = event
                continue
            try:
                chunk = os.read(descriptor, 65536)
            except OSError:
                chunk = b""  # a terminal whose other side is closed
            if not chunk:
                poller.unregister(descriptor)
                open_streams.discard(descriptor)
            read[descriptor] += chunk
    return read, last


def _files(folder: int) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(folder):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if mode & 0o170000 == 0o100000 and mode & 0o400:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
            with open(descriptor, "rb") as file:
                found[name] = file.read()
    return found


def _main() -> None:
    asked = json.load(sys.stdin)
    workspace = asked.pop("workspace", None)
    mounts = tuple(
        mount(each["source"], each["target"], writable=each["writable"])
        for each in asked.pop("mounts", ())
    )
    if workspace is not None:
        asked["workspace"] = mount(workspace, "/workspace")
    if "environment" in asked:
        asked["environment"] = tuple(tuple(pair) for pair in asked["environment"])
    if asked.get("terminal"):
        asked["terminal"] = tuple(asked["terminal"])
    stdin = asked.pop("stdin", "").encode("latin-1")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    done = run(asked.pop("arguments"), stdin=stdin, mounts=mounts, **asked)
    walls = {name: getattr(done.walls, name) for name in Walls.__match_args__}
    observed = {name: getattr(done.observed, name) for name in Observed.__match_args__}
    fields = {name: getattr(done, name) for name in ("code", "start_errno", "fault")}
    texts = {name: getattr(done, name).decode("latin-1") for name in ("stdout", "stderr")}
    written = {name: data.decode("latin-1") for name, data in done.written.items()}
    json.dump(
        {**fields, **texts, "walls": walls, "observed": observed, "written": written}, sys.stdout
    )


if __name__ == "__main__":
    _main()
