"""What the walls are told of a program, and what comes back: values only."""

from __future__ import annotations

from beddel_cli.record import record

DEFAULT_WORKSPACE = "/workspace"


@record
class Mount:
    """A host file or folder that the program sees.

    Attributes:
        source: its absolute path on the host, links resolved.
        descriptor: an O_PATH descriptor of it, opened and judged by the supervisor. Whoever
            resolves `source` again compares device and inode with this one.
        target: absolute path inside.
        folder: whether it is a folder; otherwise it is a regular file.
    """

    source: str
    descriptor: int
    target: str
    writable: bool
    folder: bool


@record
class Program:
    """One program to start.

    Attributes:
        arguments: the program (a path, or a name found in PATH inside) and its arguments.
        environment: all of its environment.
        workspace: the folder shown at `workspace_target`; None gives an empty one. What the
            program writes there goes to a file system of its own, limited by `disk_bytes` and
            `inodes`, and never to the folder itself.
        workspace_writable: false makes it read-only.
        terminal: rows and columns of a terminal of its own; None gives it pipes.
        memory_bytes, processes: for the rlimits that stand behind the limits of the whole tree.
    """

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    workspace: Mount | None
    workspace_target: str
    workspace_writable: bool
    mounts: tuple[Mount, ...]
    terminal: tuple[int, int] | None
    memory_bytes: int
    cpu_ns: int
    processes: int
    disk_bytes: int
    inodes: int
    open_files: int


@record
class Walls:
    """What the init said of each step. Numbers are errnos: 0 done, None never tried.

    Attributes:
        failed_step: the first step without which nothing can be started, else None.
        failed_errno, failed_detail: of that step.
        identity: `own id`, or `throw-away id N` when started by root.
        proc: `own`, `empty` where a fresh one is refused, `closed` where it is the host's and
            cannot be read; None before that step.
        landlock_probe: errno of a write that only Landlock forbids; EACCES proves that it bites.
        setup_ns: from the launcher's fork to ready; `waited_ns` of it was spent waiting for the
            supervisor's request.
    """

    failed_step: str | None
    failed_errno: int
    failed_detail: str
    identity: str
    proc: str | None
    no_new_privs: int | None
    capabilities: int | None
    rlimits: int | None
    landlock: int | None
    landlock_abi: int
    landlock_probe: int | None
    seccomp: int | None
    setup_ns: int
    waited_ns: int


@record
class Stream:
    """What a program wrote to one stream: how much in all, and the digest of what was passed on.

    Attributes:
        total_bytes: read from the program, passed on or not.
        passed_bytes, sha256: passed on to the caller, byte for byte (hex digest).
        head: the first bytes of it, as many as the caller asked to keep.
    """

    total_bytes: int
    passed_bytes: int
    sha256: str
    head: bytes


@record
class TreeUsage:
    """What the whole tree used, each figure with its source. None: not measured.

    Attributes:
        cpu_ns: of all processes, dead ones included; `cpu_exact` false for a lower bound.
        memory_peak_bytes: most charged to the tree at once, page cache and tmpfs included.
        anonymous_peak_bytes: largest of `samples` readings of anonymous and shared memory.
        largest_process_bytes: resident peak of the largest single process.
        processes_peak: most processes and threads at once.
        disk_bytes, inodes: on the program's own file systems, or in its scratch folder, when it
            had ended.
    """

    cpu_ns: int | None
    cpu_source: str
    cpu_exact: bool
    memory_peak_bytes: int | None
    memory_peak_source: str
    anonymous_peak_bytes: int | None
    anonymous_peak_source: str
    samples: int
    largest_process_bytes: int | None
    largest_process_source: str
    processes_peak: int | None
    processes_peak_source: str
    disk_bytes: int | None
    inodes: int | None
    disk_source: str = "kernel, statvfs at the end"


@record
class ProgramAnswer:
    """How a program ended.

    Attributes:
        exit_code: its own; None when a signal ended it or it never started.
        signal: the signal that ended it, None otherwise.
        start_errno: why it could not be started (execve), None when it was.
        limit: the key of the limit for which the supervisor (or the kernel) ended it: `timeout`,
            `cpu_time`, `memory`, `max_output`, `processes`, and `disk` or `inodes` of a scratch
            folder; None otherwise.
        reached: keys of limits that were met without ending it: `processes`, `disk`, `inodes`.
        stopped: `interrupted` (Ctrl-C) or `terminated` (SIGTERM, SIGHUP) where the caller ended it.
        fault: what was wrong on our side; then nothing else counts.
        killed: whether it took SIGKILL after the grace period.
        by_kernel: whether it was the kernel that found that memory had run out.
        exceeded: `disk` or `inodes` where only a look at the scratch folder after its end has
            found more in it than the limit; None otherwise.
    """

    exit_code: int | None
    signal: int | None
    start_errno: int | None
    limit: str | None
    reached: tuple[str, ...]
    stopped: str | None
    fault: str | None
    killed: bool
    by_kernel: bool
    wall_ns: int
    usage: TreeUsage
    stdout: Stream
    stderr: Stream
    exceeded: str | None = None
