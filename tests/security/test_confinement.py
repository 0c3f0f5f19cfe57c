"""A confined worker tries to get out, one system call at a time.

Every probe also runs unconfined, where it must get as far as the kernel's own answer: a call that
fails everywhere would prove nothing.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from beddel_cli.isolate.confine import MACHINES, _errno_of, filter_program, landlock_attributes
from tests.support import confined, drop_capabilities, processes
from tests.support.capabilities import give_up, require
from tests.support.cli import COMMAND, Home

PROGRAM = Path(confined.__file__)
WITHOUT_CAPABILITIES = (sys.executable, "-P", str(Path(drop_capabilities.__file__)))
LOOP = "for (;;) ;"
PROBES = tuple(confined.probes())

# The C library has an answer to these two; prctl could undo what keeps others out.
DENIED = {
    "prctl, dumpable again": errno.EPERM,
    "prctl, survive the parent": errno.EPERM,
    "prctl, name": errno.EPERM,
    "clone3": errno.ENOSYS,
    "sched_getaffinity": errno.EPERM,
    "half a GiB of memory": errno.ENOMEM,
}
# What a worker does need, and does get.
ALLOWED = ("a thread", "mmap", "mprotect", "getpid", "a mebibyte of memory")
KILLED = tuple(name for name in PROBES if name not in DENIED and name not in ALLOWED)

# Unconfined, these work for any user; of the others the kernel itself says why not.
WORK_OUTSIDE = (
    *("openat", "openat for writing", "openat of a new file", "openat of /proc/self/mem"),
    *("openat2", "clone as fork", "kill of the parent", "kill of itself", "process_vm_readv"),
    *("process_vm_writev", "mmap executable", "mmap executable and writable", "python open"),
    *("mprotect executable", "mprotect executable and writable", "socket", "socketpair", "ptrace"),
    *("memfd_create", "eventfd2", "chdir", "mkdirat", "unlinkat", "renameat2", "symlinkat"),
    *("fchmodat", "newfstatat", "getcwd", "uname", "getppid", "getuid", "pipe2", "dup", "fcntl"),
    *("close", "getrusage", "prlimit64", "personality", "setsid", "sched_setaffinity"),
    *("pidfd_open", "epoll_create1", "timerfd_create", "inotify_init1", "tgkill of itself"),
    *("half a GiB of shared memory", "a page of shared memory"),
    *("mprotect read-only", "mprotect of nothing", "memory that grows down"),
    *("prctl, dumpable again", "prctl, survive the parent", "prctl, name", "sched_getaffinity"),
    *("half a GiB of memory", *ALLOWED),
)
# Answers that show a call with bad arguments was looked at.
REACHED_OUTSIDE = {
    "execve": errno.ENOENT,
    "execveat": errno.EBADF,
    "connect": errno.EBADF,
    "bind": errno.EBADF,
    "sendto": errno.EBADF,
    "ioctl": errno.EBADF,
    "wait4": errno.ECHILD,
    "seccomp": errno.EINVAL,
    "getdents64": errno.EBADF,
}
# What Landlock alone must stop with EACCES.
FILE_PROBES = (
    *("openat", "openat for writing", "openat of a new file", "openat of /proc/self/mem"),
    *("openat2", "python open", "mkdirat", "unlinkat", "renameat2", "symlinkat"),
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a probe ended: its exit code or minus its signal, and the errno it told."""

    code: int
    errno: int | None


class Prober:
    """A process that tries things in children of its own."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "file"
        self._child = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, PROBE_FILE=str(self._file)),
            cwd=folder,
            text=True,
        )

    def attempt(self, how: str, name: str) -> Ending:
        """Try one probe, on a folder that holds one file and nothing else."""
        for path in self._file.parent.iterdir():
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        self._file.write_text("secret", encoding="ascii")
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{how} {name}\n")
        stdin.flush()
        words = stdout.readline().split()
        if not words:
            _, stderr = self._child.communicate()
            raise AssertionError(stderr)
        return Ending(int(words[0]), None if words[1] == "-" else int(words[1]))

    def files(self) -> list[str]:
        """Give what is in the folder now."""
        return sorted(path.name for path in self._file.parent.iterdir())

    def close(self) -> None:
        """End the process."""
        self._child.communicate(timeout=20)


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prober]:
    """One process for all probes of this module."""
    require("linux")
    made = Prober(tmp_path_factory.mktemp("probes"))
    yield made
    made.close()


def test_there_are_enough_probes() -> None:
    assert len(KILLED) >= 90
    assert set(DENIED) | set(ALLOWED) | set(WORK_OUTSIDE) | set(REACHED_OUTSIDE) <= set(PROBES)


def _require_32_bits(prober: Prober, name: str) -> None:
    if name.startswith("i386") and prober.attempt("unconfined", name).code == -signal.SIGSEGV:
        give_up("i386: this kernel runs no 32-bit code")


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_once(prober: Prober, name: str) -> None:
    _require_32_bits(prober, name)
    assert prober.attempt("confined", name) == Ending(-signal.SIGSYS, None)
    assert prober.files() == ["file"]


@pytest.mark.parametrize("name", DENIED)
def test_denied_with_an_errno(prober: Prober, name: str) -> None:
    assert prober.attempt("confined", name) == Ending(0, DENIED[name])


@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_worker_needs_works(prober: Prober, name: str) -> None:
    assert prober.attempt("confined", name) == Ending(0, 0)


@pytest.mark.parametrize("name", WORK_OUTSIDE)
def test_the_same_works_unconfined(prober: Prober, name: str) -> None:
    assert prober.attempt("unconfined", name) == Ending(0, 0)


@pytest.mark.parametrize("name", REACHED_OUTSIDE)
def test_the_same_is_looked_at_unconfined(prober: Prober, name: str) -> None:
    assert prober.attempt("unconfined", name) == Ending(0, REACHED_OUTSIDE[name])


@pytest.mark.parametrize(
    "name", [name for name in PROBES if name not in WORK_OUTSIDE and name not in REACHED_OUTSIDE]
)
def test_nothing_else_is_killed_unconfined(prober: Prober, name: str) -> None:
    _require_32_bits(prober, name)
    ending = prober.attempt("unconfined", name)
    assert ending.code == 0
    assert ending.errno is not None


@pytest.mark.parametrize("name", FILE_PROBES)
def test_landlock_alone_stops_files(prober: Prober, name: str) -> None:
    require("landlock")
    assert prober.attempt("landlock", name) == Ending(0, errno.EACCES)
    assert prober.files() == ["file"]


def test_the_filter_names_every_architecture_it_serves() -> None:
    for machine in MACHINES.values():
        program = filter_program(machine)
        assert len(program) % 8 == 0
        assert machine.audit_arch.to_bytes(4, "little") in program
    assert landlock_attributes(1) < landlock_attributes(6)


def test_two_threads_are_refused() -> None:
    code = textwrap.dedent(
        """
        import _thread
        from beddel_cli.isolate.confine import confine
        from beddel_cli.isolate.supervisor import Worker
        hold = _thread.allocate_lock()
        hold.acquire()
        _thread.start_new_thread(hold.acquire, ())
        for attempt in (confine, Worker.start):
            try:
                attempt()
            except Exception as error:
                print(type(error).__name__, str(error))
        with open("/proc/self/status") as file:
            print([line.split()[1] for line in file if line.startswith(("NoNewPrivs", "Seccomp:"))])
        import os
        os._exit(0)
        """
    )
    done = subprocess.run(
        [sys.executable, "-P", "-u", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "RuntimeError the worker has more than one thread before confinement",
        "GuestError a worker can only be started from a process with one thread",
        "['0', '0']",
    ]


# ---- a real worker, from outside ------------------------------------------------------------


@pytest.fixture
def looping(home: Home) -> Iterator[tuple[int, int]]:
    """A supervisor whose worker is in the middle of an endless job: both process ids."""
    run = home.start("run", home.job(LOOP))
    worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
    yield run.pid, worker
    os.kill(worker, signal.SIGKILL)
    run.communicate(timeout=20)
    assert run.returncode == 125


def test_status_from_outside(looping: tuple[int, int]) -> None:
    supervisor, worker = looping
    status = processes.status(worker)
    assert status["PPid"] == str(supervisor)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[name], 16) == 0, name
    # The control: nothing binds the supervisor, and as root it keeps its capabilities.
    outside = processes.status(supervisor)
    assert outside["NoNewPrivs"] == processes.status(os.getpid())["NoNewPrivs"]
    assert outside["Seccomp"] == processes.status(os.getpid())["Seccomp"]
    assert outside["CapEff"] == processes.status(os.getpid())["CapEff"]


def test_every_thread_is_bound(looping: tuple[int, int]) -> None:
    _, worker = looping
    threads = sorted(path.name for path in Path(f"/proc/{worker}/task").iterdir())
    assert len(threads) == 2
    for thread in threads:
        text = Path(f"/proc/{worker}/task/{thread}/status").read_text(encoding="utf-8")
        lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
        assert int(lines["CapEff"], 16) == 0


def test_nothing_is_open_but_its_pipe(looping: tuple[int, int]) -> None:
    supervisor, worker = looping
    assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (0, 0)
    assert resource.prlimit(supervisor, resource.RLIMIT_NOFILE) != (0, 0)
    descriptors = processes.open_descriptors(worker)
    if descriptors is None:
        give_up("trace: only root sees the descriptors of a process that is not dumpable")
    mine = processes.open_descriptors(supervisor) or {}
    pipes = [path for path in descriptors.values() if path.startswith("pipe:")]
    assert len(pipes) == 2
    assert set(pipes) <= set(mine.values())
    # Anything else may only be the guest's own code, which is mapped and holds no job.
    others = set(descriptors.values()) - set(pipes)
    assert all("memfd:wasm" in path or path.endswith(".cwasm") for path in others), others
    assert len(mine) > len(pipes)


def test_limits_of_the_process(looping: tuple[int, int]) -> None:
    _, worker = looping
    for limit in (
        resource.RLIMIT_CORE,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_MEMLOCK,
        resource.RLIMIT_MSGQUEUE,
    ):
        assert resource.prlimit(worker, limit) == (0, 0)
    soft, hard = resource.prlimit(worker, resource.RLIMIT_DATA)
    assert soft == hard
    assert 0 < hard < 1 << 30


def _may_look_into(pid: int) -> bool:
    """Tell whether a process of the same user, without capabilities, may look into another."""
    code = f"import os; os.readlink('/proc/{pid}/cwd')"
    done = subprocess.run(
        [*WITHOUT_CAPABILITIES, sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0 or b"PermissionError" in done.stderr
    return done.returncode == 0


def test_not_dumpable(home: Home) -> None:
    # Root without capabilities is as bound by this as any user.
    run = home.start("run", home.job(LOOP), command=(*WITHOUT_CAPABILITIES, *COMMAND))
    # The control: the same user may look into a process that is as any other.
    other = subprocess.Popen([*WITHOUT_CAPABILITIES, "/bin/sleep", "60"])
    try:
        worker = processes.wait_for(lambda: processes.busy_worker(run.pid), what="a busy worker")
        assert _may_look_into(worker) is False
        # Nor into the supervisor, whose memory holds the key: no core dump of it either.
        assert _may_look_into(run.pid) is False
        assert _may_look_into(other.pid) is True
    finally:
        for process in (run, other):
            process.kill()
            process.wait(timeout=20)
        run.communicate(timeout=20)


def test_its_own_session(looping: tuple[int, int]) -> None:
    supervisor, worker = looping
    assert os.getsid(worker) == worker
    assert os.getsid(supervisor) == os.getsid(0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_is_used_up_is_not_taken_for_missing(number: int) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    def missing() -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with pytest.raises(OSError, match=os.strerror(number)):
        _errno_of(fail)
    assert _errno_of(missing) == errno.ENOSYS, "the control"
