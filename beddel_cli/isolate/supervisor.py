"""The other side of the wall: start a worker, check it from outside, bound everything it says.

The supervisor keeps its own clock. Whatever a worker does or fails to do, `Worker.run` comes back
within the run's wall limit and a fixed margin, with a report that was checked or with the way the
worker died.

Sources: proc(5) for /proc/PID/status, limits and smaps_rollup; fork(2); wait4(2).
"""

from __future__ import annotations

import os
import resource
import select
from time import monotonic_ns

from beddel_cli.errors import GuestError
from beddel_cli.forking import get_ready_to_fork
from beddel_cli.isolate.frames import (
    BROKEN,
    HEADER,
    READY,
    REPORT,
    REQUEST,
    SNAPSHOT,
    FrameError,
    Ready,
    Report,
    Request,
    pack_request,
    parse_ready,
    parse_report,
    ready_size,
    report_limit,
)
from beddel_cli.isolate.worker import EXIT_DONE, serve
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# A first run on another wasmtime version compiles the guest, which takes seconds.
READY_SECONDS = 60
# Copying the isolate's memory through a pipe takes milliseconds.
SNAPSHOT_SECONDS = 5
# The engine ends a run at its limit; past this margin the supervisor kills the worker itself.
KILL_MARGIN_NS = 60_000_000
_BROKEN_BYTES = 2000
_SAMPLE_MS = 50
# How long a worker that has closed its pipe may take to die before its end counts as our doing.
_DYING_SECONDS = 0.02
# POSIX fixes the number; the signal module costs 3 ms before the fork.
_SIGKILL = 9


@record
class Observed:
    """What /proc says of the confined worker, read by the supervisor. None: could not be read."""

    no_new_privs: int | None
    seccomp_mode: int | None
    seccomp_filters: int | None
    effective_capabilities: int | None
    threads: int | None
    file_limit: int | None
    core_limit: int | None


@record
class WorkerUsage:
    """What the kernel measured of a finished worker.

    `anonymous_peak_bytes` is the largest of `samples` readings of Pss_Anon,
    the last one taken while the isolate's memory was still mapped; None when /proc refused.
    """

    cpu_ns: int
    anonymous_peak_bytes: int | None
    samples: int


@record
class Answer:
    """How a run in a worker ended: with a checked report, or without one.

    `fault` says what was wrong with the worker when `report` is None; `timed_out` that the
    supervisor's own clock ran out; `signal` that a signal of somebody else ended it.
    """

    report: Report | None
    snapshot: bytes | None
    fault: str | None
    timed_out: bool
    signal: int | None
    wall_ns: int
    usage: WorkerUsage


class _WorkerGone(Exception):
    """The worker closed its pipe."""


class _TimeIsUp(Exception):
    """The supervisor's clock ran out."""


def parse_status(text: str) -> dict[str, str]:
    """Read the `Name:\tvalue` lines of /proc/PID/status."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def parse_anonymous_bytes(rollup: str) -> int | None:
    """Read Pss_Anon from a smaps_rollup, in bytes; None if it is not there.

    That is the memory which exists because of this process, pages still shared with its parent
    counted by their share. Pages of files are left out: the kernel may drop them at any time.
    """
    for line in rollup.splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    return None


class Worker:
    """One forked worker, good for one run. Always ended by `finish`, whatever happened."""

    def __init__(self, pid: int, requests: int, reports: int) -> None:
        self.pid = pid
        self._requests = requests
        self._reports = reports
        self._rollup = _open_rollup(pid)
        self._anonymous_peak: int | None = None
        self._samples = 0
        self._reaped: tuple[int, resource.struct_rusage] | None = None
        self._was_alive = False
        self._gone = False

    @classmethod
    def start(cls, main: Callable[[int, int, int], None] = serve) -> Worker:
        """Fork a worker. Call it first: the child inherits everything this process holds.

        Raises:
            GuestError: this process has other threads, or cannot fork.
        """
        get_ready_to_fork("a worker")
        supervisor = os.getpid()
        requests_out, requests_in = os.pipe()
        reports_out, reports_in = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            for descriptor in (requests_out, requests_in, reports_out, reports_in):
                os.close(descriptor)
            raise GuestError(f"cannot start a worker: {error.strerror}") from error
        if pid == 0:
            try:
                main(requests_out, reports_in, supervisor)
            finally:
                os._exit(70)
        os.close(requests_out)
        os.close(reports_in)
        os.set_blocking(requests_in, False)
        os.set_blocking(reports_out, False)
        worker = cls(pid, requests_in, reports_out)
        # The worker confines itself only after this byte, once its memory map is open here.
        try:
            os.write(requests_in, b"\n")
        except BrokenPipeError:
            return worker  # gone already; wait_ready says so
        return worker

    def wait_ready(self) -> Ready:
        """Wait until the worker has confined itself, and give its word on how that went.

        Raises:
            GuestError: it could not load the guest, died or said something else.
        """
        deadline = monotonic_ns() + READY_SECONDS * 1_000_000_000
        try:
            kind, payload = self._read_frame(deadline, {READY: ready_size(), BROKEN: _BROKEN_BYTES})
            if kind == READY:
                return parse_ready(payload)
            reason = payload.decode("utf-8", "replace")
        except _WorkerGone:
            reason = "it died while loading the guest" + self._describe_death()
        except _TimeIsUp:
            reason = f"it was not ready within {READY_SECONDS} s"
        except FrameError as error:
            reason = str(error)
        self.finish()
        raise GuestError(
            f"the worker did not start: {reason}", hint="beddel-cli --version shows what is used"
        )

    def observe(self) -> Observed:
        """Read from outside what the kernel enforces on the worker."""
        status = parse_status(_read_text(f"/proc/{self.pid}/status") or "")
        return Observed(
            no_new_privs=_integer(status.get("NoNewPrivs"), 10),
            seccomp_mode=_integer(status.get("Seccomp"), 10),
            seccomp_filters=_added_filters(status),
            effective_capabilities=_integer(status.get("CapEff"), 16),
            threads=_integer(status.get("Threads"), 10),
            file_limit=self._limit(resource.RLIMIT_NOFILE),
            core_limit=self._limit(resource.RLIMIT_CORE),
        )

    def _limit(self, which: int) -> int | None:
        try:
            return resource.prlimit(self.pid, which)[1]
        except (OSError, ValueError):
            return None

    def run(self, request: Request) -> Answer:
        """Send the job and wait for its ending, at most the wall limit and a fixed margin."""
        started = monotonic_ns()
        deadline = started + request.wall_ns + KILL_MARGIN_NS
        report = snapshot = fault = None
        timed_out = False
        try:
            payload = pack_request(request)
            self._write(HEADER.pack(REQUEST, len(payload)) + payload, deadline)
            report, snapshot = self._read_answer(request, deadline)
        except _TimeIsUp:
            timed_out = True
        except _WorkerGone:
            fault = "the worker died without a report"
        except FrameError as error:
            fault = str(error)
        wall_ns = monotonic_ns() - started
        self._sample()
        status = self.finish(kill=report is None)
        if report is not None and status != EXIT_DONE:
            report, fault = None, f"the worker ended with status {status} after its report"
        death = -status if status < 0 and fault is not None else None
        if death == _SIGKILL and self._was_alive:
            death = None  # it was ours
        return Answer(
            report=report,
            snapshot=snapshot if report is not None else None,
            fault=fault,
            timed_out=timed_out,
            signal=death,
            wall_ns=wall_ns,
            usage=self.usage(),
        )

    def _read_answer(self, request: Request, deadline: int) -> tuple[Report, bytes | None]:
        limit = report_limit(request.output_bytes, request.console_bytes)
        kind, payload = self._read_frame(deadline, {REPORT: limit, BROKEN: _BROKEN_BYTES})
        if kind == BROKEN:
            raise FrameError(f"the worker broke: {payload.decode('utf-8', 'replace')}")
        report = parse_report(payload, request)
        snapshot = None
        if request.want_snapshot:
            # The run itself is over; only the copy of its memory is still on its way.
            later = monotonic_ns() + SNAPSHOT_SECONDS * 1_000_000_000
            try:
                _, snapshot = self._read_frame(later, {SNAPSHOT: report.memory_bytes})
            except _TimeIsUp:
                raise FrameError("the snapshot did not come") from None
            if len(snapshot) != report.memory_bytes:
                raise FrameError("a snapshot that is not as long as the reported memory")
            if _digest_pages(snapshot) != report.memory_digest:
                raise FrameError("a snapshot that has not the reported digest")
        return report, snapshot

    def finish(self, *, kill: bool = True) -> int:
        """End the worker and reap it; gives its exit code, or minus the signal that ended it.

        Without `kill` an orderly worker is allowed to exit by itself, and one that has more to
        say, or does not exit, is a fault like any other.
        """
        if self._reaped is None:
            late = b"" if kill else self._dismiss()
            # One that is exiting keeps the status it chose; one that only closed its pipe does not.
            self._was_alive = not _ends_within(self.pid, _DYING_SECONDS if self._gone else 0)
            self._kill()
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            # A signal handler that raised between these two would make us kill a stranger later.
            from _signal import SIG_BLOCK, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask  # type: ignore[import-not-found]

            blocked = pthread_sigmask(SIG_BLOCK, (SIGHUP, SIGINT, SIGTERM))
            try:
                _, status, usage = os.wait4(self.pid, 0)
                code = os.waitstatus_to_exitcode(status)
                self._reaped = (70 if late and code == EXIT_DONE else code, usage)
            finally:
                pthread_sigmask(SIG_SETMASK, blocked)
            for descriptor in (self._requests, self._reports, self._rollup):
                if descriptor is not None:
                    os.close(descriptor)
        return self._reaped[0]

    def usage(self) -> WorkerUsage:
        """Give the kernel's figures of a finished worker."""
        if self._reaped is None:
            raise AssertionError("usage of a worker that still runs")
        usage = self._reaped[1]
        return WorkerUsage(
            cpu_ns=round((usage.ru_utime + usage.ru_stime) * 1e9),
            anonymous_peak_bytes=self._anonymous_peak,
            samples=self._samples,
        )

    def _kill(self) -> None:
        os.kill(self.pid, _SIGKILL)

    def _describe_death(self) -> str:
        status = self.finish()
        return f" (signal {-status})" if status < 0 else f" (status {status})"

    def _dismiss(self) -> bytes:
        """Let the worker go and wait for the end of its pipe.

        Anything it says before that, or no end in time, is returned.
        """
        try:
            os.write(self._requests, b"\n")
        except BrokenPipeError:
            pass  # it did not wait to be measured
        except BlockingIOError:
            return b"never read its job"
        deadline = monotonic_ns() + KILL_MARGIN_NS * 10
        try:
            return self._read(1, deadline)
        except _WorkerGone:
            return b""
        except _TimeIsUp:
            return b"still running"

    def _read_frame(self, deadline: int, allowed: dict[int, int]) -> tuple[int, bytes]:
        kind, size = HEADER.unpack(self._read(HEADER.size, deadline))
        if kind not in allowed:
            raise FrameError(f"frame of type {kind} where {sorted(allowed)} may come")
        if size > allowed[kind]:
            raise FrameError(f"frame of {size} bytes, at most {allowed[kind]} may come")
        return kind, self._read(size, deadline)

    def _read(self, size: int, deadline: int) -> bytes:
        poller = select.poll()
        poller.register(self._reports, select.POLLIN)
        parts = []
        while size:
            self._wait(poller, deadline)
            try:
                part = os.read(self._reports, min(size, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                self._gone = True
                raise _WorkerGone
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _write(self, data: bytes, deadline: int) -> None:
        poller = select.poll()
        poller.register(self._requests, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            self._wait(poller, deadline)
            try:
                rest = rest[os.write(self._requests, rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._gone = True
                raise _WorkerGone from None

    def _wait(self, poller: select.poll, deadline: int) -> None:
        """Wait for the pipe, sampling the worker's memory while it computes."""
        while True:
            left_ms = (deadline - monotonic_ns()) // 1_000_000
            if left_ms < 0:
                raise _TimeIsUp
            if poller.poll(min(left_ms + 1, _SAMPLE_MS)):
                return
            self._sample()

    def _sample(self) -> None:
        if self._rollup is None:
            return
        try:
            os.lseek(self._rollup, 0, os.SEEK_SET)
            text = os.read(self._rollup, 4096).decode("ascii", "replace")
        except OSError:
            return
        anonymous = parse_anonymous_bytes(text)
        if anonymous is not None:
            self._samples += 1
            self._anonymous_peak = max(anonymous, self._anonymous_peak or 0)


def _digest_pages(memory: bytes) -> bytes:
    from hashlib import sha256

    pages = (memory[start : start + 4096] for start in range(0, len(memory), 4096))
    return sha256(b"".join(sha256(page).digest() for page in pages)).digest()


def _ends_within(pid: int, seconds: float) -> bool:
    """Tell whether a child ends by itself, without reaping it."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], seconds)[0])
    finally:
        os.close(pidfd)


def _open_rollup(pid: int) -> int | None:
    # Opened before the worker makes itself non-dumpable; afterwards only root could.
    try:
        return os.open(f"/proc/{pid}/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _added_filters(status: dict[str, str]) -> int | None:
    """Give how many filters a process has beyond our own: a container's bind us both."""
    ours = parse_status(_read_text("/proc/self/status") or "")
    its_count = _integer(status.get("Seccomp_filters"), 10)
    our_count = _integer(ours.get("Seccomp_filters"), 10)
    return None if its_count is None or our_count is None else its_count - our_count


def _read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _integer(text: str | None, radix: int) -> int | None:
    return None if text is None else int(text, radix)
