"""A worker that lies: whatever it says, the run ends, and nothing it cannot know is believed."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beddel_cli.errors import GuestError
from beddel_cli.host import Finding, Host
from beddel_cli.isolate import supervisor
from beddel_cli.isolate.frames import (
    BROKEN,
    ERROR_MESSAGE_BYTES,
    HEADER,
    NOT_STARTED,
    READY,
    REPORT,
    REQUEST,
    SETTLED,
    SNAPSHOT,
    TRAPPED,
    Request,
    pack_ready,
    pack_report,
    pack_request,
    report_limit,
)
from beddel_cli.isolate.supervisor import Worker
from beddel_cli.job import Job, parse_job
from beddel_cli.limits import Limits
from beddel_cli.outcome import Outcome, judge
from beddel_cli.plan import Plan, Wishes, make_plan
from beddel_cli.profile import PROTECTIONS, load_profile
from tests.support import processes
from tests.support.cli import LATE_SECONDS, Home, has_traceback
from tests.support.lying_worker import (
    GUEST_PAGES,
    PAGE_BYTES,
    READY_WORDS,
    Lie,
    Main,
    Stage,
    frame,
    honest_report,
    lying,
    lying_at_start,
    send,
    sleep_forever,
)

WALL_NS = 200_000_000
JOB = b"beddel: 1\nid: job\nruntime: javascript\ncode: return 42\n"


@pytest.fixture(autouse=True)
def _no_test_may_hang() -> Iterator[None]:
    def give_up(number: int, frame: object) -> None:
        raise AssertionError("the supervisor hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    descriptors, children = _descriptors(), processes.children(os.getpid())
    yield
    assert _descriptors() == descriptors
    assert processes.children(os.getpid()) == children


def _descriptors() -> set[str]:
    # The folder's own descriptor is gone by the time its entries are looked at.
    return {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def _request(*, snapshot: bool = False, padding: int = 0) -> Request:
    limits = _plan().limits
    assert limits.fuel
    assert limits.memory_bytes
    assert limits.output_bytes
    assert limits.console_bytes
    return Request(
        wall_ns=WALL_NS,
        fuel=limits.fuel,
        memory_bytes=limits.memory_bytes,
        clock_us=0,
        seed=0,
        output_bytes=limits.output_bytes,
        console_bytes=limits.console_bytes,
        allow_function=False,
        want_snapshot=snapshot,
        code=b"return 42",
        input=b" " * padding,
    )


def _job() -> Job:
    return parse_job(JOB, "job.yaml")


def _plan() -> Plan:
    findings = tuple(Finding(name, True, "a test", "a test") for name in PROTECTIONS)
    host = Host("Linux", "x86_64", "6.0", GUEST_PAGES * PAGE_BYTES, findings)
    return make_plan(_job(), load_profile("ultra-secure"), host, Wishes(Limits(wall_ns=WALL_NS)))


def _run(main: Main, request: Request | None = None) -> Outcome:
    """Run a double to its end and judge it as a run would be."""
    worker = Worker.start(main)
    try:
        ready = worker.wait_ready()
        started = time.monotonic()
        answer = worker.run(_request() if request is None else request)
        took = time.monotonic() - started
    finally:
        worker.finish()
    # Its own margin for a worker that will not end is 0.6 s, that for a snapshot 5 s.
    most = WALL_NS / 1e9 + 2 * LATE_SECONDS + (6 if request and request.want_snapshot else 0)
    assert took < most
    return judge(_job(), _plan(), ready, answer)


def _assert_fault(outcome: Outcome) -> None:
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("fault", "worker-fault", 125)
    assert outcome.message
    assert outcome.output is None
    assert outcome.console == ()
    # What only the worker could know, nobody knows.
    usage = outcome.usage
    claims = (usage.fuel, usage.memory_bytes, usage.memory_digest, usage.guest_wall_ns)
    assert claims == (None, None, None, None)
    assert usage.wall_ns is not None
    assert usage.worker_cpu_ns is not None


def test_an_honest_double_is_believed() -> None:
    def tell(stage: Stage) -> None:
        stage.report()
        stage.be_dismissed()

    outcome = _run(lying(tell))
    assert (outcome.reason, outcome.output, outcome.usage.fuel) == ("ok", b"42", 1000)


# ---- at the start ---------------------------------------------------------------------------

READY_FRAME = frame(READY, pack_ready(READY_WORDS))


def _ready_with(position: int, value: int) -> bytes:
    payload = bytearray(pack_ready(READY_WORDS))
    payload[position] = value
    return frame(READY, bytes(payload))


START_LIES: dict[str, bytes] = {
    "nothing": b"",
    "half a header": READY_FRAME[:3],
    "header without payload": READY_FRAME[: HEADER.size],
    "half a payload": READY_FRAME[:-1],
    "payload too short": frame(READY, pack_ready(READY_WORDS)[:-1]),
    "payload empty": frame(READY, b""),
    "payload too long": frame(READY, pack_ready(READY_WORDS) + b"\0"),
    "length of 4 GiB": HEADER.pack(READY, 0xFFFFFFFF),
    "negative length": struct.pack("<Bi", READY, -1),
    "big-endian length": struct.pack(">BI", READY, len(pack_ready(READY_WORDS))) + b"x" * 31,
    "unknown type": frame(0, pack_ready(READY_WORDS)),
    "type of a report": frame(REPORT, pack_ready(READY_WORDS)),
    "a report at once": frame(REPORT, pack_report(honest_report())),
    "type 255": frame(255, b""),
    "limits held: 2": _ready_with(14, 2),
    "code from nowhere": _ready_with(15, 3),
    "text": b"ready\n",
    "an HTTP answer": b"HTTP/1.1 200 OK\r\n\r\n",
    "its own breakdown": frame(BROKEN, b"\x1b[2Jno"),
    "a breakdown that is no text": frame(BROKEN, bytes(range(128, 256))),
    "a breakdown of 4 GiB": HEADER.pack(BROKEN, 0xFFFFFFFF),
    "a breakdown too long": frame(BROKEN, b"x" * 2001),
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("name", START_LIES)
def test_lies_at_the_start(name: str) -> None:
    worker = Worker.start(lying_at_start(lambda reports: send(reports, START_LIES[name])))
    with pytest.raises(GuestError, match="the worker did not start: ") as caught:
        worker.wait_ready()
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGABRT])
def test_death_at_the_start(number: signal.Signals) -> None:
    worker = Worker.start(lying_at_start(lambda reports: os.kill(os.getpid(), number)))
    with pytest.raises(GuestError, match=rf"died while loading the guest \(signal {int(number)}\)"):
        worker.wait_ready()


def test_silence_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "READY_SECONDS", 0.2)
    worker = Worker.start(lying_at_start(lambda reports: sleep_forever()))
    with pytest.raises(GuestError, match="not ready within"):
        worker.wait_ready()


def test_slow_words_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(reports: int) -> None:
        for byte in READY_FRAME:
            send(reports, bytes((byte,)))
            time.sleep(0.05)

    monkeypatch.setattr(supervisor, "READY_SECONDS", 0.3)
    worker = Worker.start(lying_at_start(drip))
    with pytest.raises(GuestError, match="not ready within"):
        worker.wait_ready()


# ---- after the job --------------------------------------------------------------------------

REPORT_BYTES = pack_report(honest_report())
# Where the five lengths of a report stand: output, name, message, stack, console.
LENGTHS_AT = len(REPORT_BYTES) - len(b"42") - 32 - 5 * 4


def _sized(position: int, size: int) -> bytes:
    at = LENGTHS_AT + 4 * position
    return REPORT_BYTES[:at] + struct.pack("<I", size & 0xFFFFFFFF) + REPORT_BYTES[at + 4 :]


def _bytes(data: bytes) -> Lie:
    return lambda stage: stage.send(data)


def _frame(kind: int, payload: bytes) -> Lie:
    return lambda stage: stage.frame(kind, payload)


def _report(**changes: object) -> Lie:
    def tell(stage: Stage) -> None:
        stage.report(**changes)
        stage.be_dismissed()

    return tell


def _packed(**bytes_at: int) -> Lie:
    """A report with single bytes changed that the packer would not let through."""
    payload = bytearray(REPORT_BYTES)
    for name, value in bytes_at.items():
        payload[{"ending": 0, "status": 1, "trap_code": 2, "padding": 3}[name]] = value
    return _frame(REPORT, bytes(payload))


def _then(data: bytes) -> Lie:
    def tell(stage: Stage) -> None:
        stage.report()
        stage.send(data)
        stage.be_dismissed()

    return tell


def _dismissed_then(data: bytes) -> Lie:
    def tell(stage: Stage) -> None:
        stage.report()
        stage.be_dismissed()
        stage.send(data)

    return tell


def _dies(number: signal.Signals) -> Lie:
    return lambda stage: os.kill(os.getpid(), number)


def _floods(header: bytes) -> Lie:
    def tell(stage: Stage) -> None:
        stage.send(header)
        while True:
            stage.send(bytes(1 << 20))

    return tell


def _reports_and_dies(stage: Stage) -> None:
    stage.report()
    stage.be_dismissed()
    os.kill(os.getpid(), signal.SIGSEGV)


def _reports_and_stays(stage: Stage) -> None:
    stage.report()
    sleep_forever()


def _reports_and_hides(stage: Stage) -> None:
    stage.report()
    os.close(stage.reports)
    os.close(stage.requests)
    sleep_forever()


def _closes_and_stays(stage: Stage) -> None:
    os.close(stage.reports)
    sleep_forever()


FAULTS: dict[str, Lie] = {
    "says nothing": lambda stage: None,
    "half a header": _bytes(HEADER.pack(REPORT, len(REPORT_BYTES))[:2]),
    "header only": _bytes(HEADER.pack(REPORT, len(REPORT_BYTES))),
    "half a report": _bytes(frame(REPORT, REPORT_BYTES)[:-10]),
    "all but the last byte": _bytes(frame(REPORT, REPORT_BYTES)[:-1]),
    "empty report": _frame(REPORT, b""),
    "one byte too few": _frame(REPORT, REPORT_BYTES[: LENGTHS_AT + 51]),
    "length of 4 GiB": _bytes(HEADER.pack(REPORT, 0xFFFFFFFF)),
    "length of 2 GiB": _bytes(HEADER.pack(REPORT, 0x80000000)),
    "negative length": _bytes(struct.pack("<Bi", REPORT, -1)),
    "one byte above the limit": _bytes(HEADER.pack(REPORT, report_limit(1 << 18, 1 << 14) + 1)),
    "type 0": _frame(0, REPORT_BYTES),
    "type 255": _frame(255, REPORT_BYTES),
    "ready again": _bytes(READY_FRAME),
    "the request echoed": _frame(REQUEST, REPORT_BYTES),
    "a snapshot nobody asked for": _frame(SNAPSHOT, bytes(PAGE_BYTES)),
    "length of 4 GiB, and all of it": _floods(HEADER.pack(REPORT, 0xFFFFFFFF)),
    "a breakdown of 4 GiB, and all of it": _floods(HEADER.pack(BROKEN, 0xFFFFFFFF)),
    "zeros without end": _floods(b""),
    "text": _bytes(b"42\n"),
    "JSON": _bytes(b'{"status": "success", "output": 42}'),
    "zeros": _bytes(bytes(65536)),
    "its own breakdown": _frame(BROKEN, b"MemoryError: \x1b[2J"),
    "a breakdown that is no text": _frame(BROKEN, bytes(range(128, 256))),
    "a breakdown too long": _frame(BROKEN, b"x" * 2001),
    "a breakdown of 4 GiB": _bytes(HEADER.pack(BROKEN, 0xFFFFFFFF)),
    "padding": _packed(padding=1),
    "ending 3": _packed(ending=3),
    "ending 255": _packed(ending=255),
    "status 9": _packed(status=9),
    "status 255": _packed(status=255),
    "trap that settled": _packed(trap_code=0),
    "output longer than the frame": _frame(REPORT, _sized(0, 3)),
    "output shorter than the frame": _frame(REPORT, _sized(0, 1)),
    "output of -1 bytes": _frame(REPORT, _sized(0, -1)),
    "name of 4 GiB": _frame(REPORT, _sized(1, 0xFFFFFFFF)),
    "stack of 2 GiB": _frame(REPORT, _sized(3, 0x80000000)),
    "console of -2 bytes": _frame(REPORT, _sized(4, -2)),
    "output above the limit": _report(output=b"1" * ((1 << 18) + 1)),
    "part of an output above the limit": _report(output=b"1", output_total_bytes=(1 << 18) + 1),
    "output shorter than it says": _report(output=b"42", output_total_bytes=3),
    "output longer than it says": _report(output=b"42", output_total_bytes=1),
    "no output where it says 2 bytes": _report(output=b"", output_total_bytes=2),
    "error name above its limit": _report(status=1, output=b"", error_name=b"x" * 257),
    "error message above its limit": _report(
        status=1, output=b"", error_message=b"x" * (ERROR_MESSAGE_BYTES + 1)
    ),
    "console above its limit": _report(console=b"x" * ((1 << 14) + 1)),
    "console that breaks off": _report(console=b"\0\0\0"),
    "console entry longer than the console": _report(console=struct.pack("<I", 100 << 3) + b"x"),
    "console entry of 512 MiB": _report(console=b"\xf8\xff\xff\xff"),
    "console level 5": _report(console=struct.pack("<I", 1 << 3 | 5) + b"x"),
    "console level 7": _report(console=struct.pack("<I", 7)),
    "console garbage": _report(console=bytes(range(256))),
    "success without output": _report(output=b""),
    "output that is no JSON": _report(output=b"forty-two"),
    "two JSON values": _report(output=b"4 2"),
    "JSON that breaks off": _report(output=b'{"a":'),
    "JSON in Latin-1": _report(output=b'"\xe9"'),
    "JSON in UTF-16": _report(output='"x"'.encode("utf-16")),
    "JSON with a mark": _report(output=b"\xef\xbb\xbf42"),
    "NUL after JSON": _report(output=b"42\0"),
    "control characters": _report(output=b'"\x1b[2J"'),
    "memory above its limit": _report(memory_bytes=(2 << 20) + PAGE_BYTES),
    "memory of 16 EiB": _report(memory_bytes=2**64 - 1),
    "no memory": _report(memory_bytes=0),
    "less memory than the guest": _report(memory_bytes=(GUEST_PAGES - 1) * PAGE_BYTES),
    "half a page of memory": _report(memory_bytes=GUEST_PAGES * PAGE_BYTES + 2048),
    "fuel above its limit": _report(fuel_used=2**63),
    "a run longer than it took": _report(wall_ns=3_600_000_000_000),
    "a start longer than the run": _report(wall_ns=10, instantiate_ns=20),
    "more CPU time than the kernel counted": _report(cpu_ns=3_600_000_000_000),
    "the isolate did not fit": _report(ending=NOT_STARTED, output=b""),
    "the input was not JSON": _report(ending=SETTLED, status=7, output=b""),
    "time was up at once": _report(ending=TRAPPED, trap_code=10, output=b""),
    "fuel was used up, and was not": _report(ending=TRAPPED, trap_code=11, output=b""),
    "a second report": _then(frame(REPORT, REPORT_BYTES)),
    "a report, then a byte": _then(b"\0"),
    "a report, then ready": _then(READY_FRAME),
    "a report, then a breakdown": _then(frame(BROKEN, b"x")),
    "a report, then a mebibyte": _then(bytes(1 << 20)),
    "a report, and a byte when dismissed": _dismissed_then(b"\0"),
    "a report, and another when dismissed": _dismissed_then(frame(REPORT, REPORT_BYTES)),
    "a report, then it dies": _reports_and_dies,
    "a report, then it stays": _reports_and_stays,
    "a report, then it hides": _reports_and_hides,
    "closes its pipe and stays": _closes_and_stays,
    "killed": _dies(signal.SIGKILL),
    "segmentation fault": _dies(signal.SIGSEGV),
    "system call that is not allowed": _dies(signal.SIGSYS),
    "SIGTERM": _dies(signal.SIGTERM),
    "abort": _dies(signal.SIGABRT),
}


@pytest.mark.parametrize("size", [report_limit(1 << 18, 1 << 14) + 1, 0x80000000, 0xFFFFFFFF])
def test_a_length_is_judged_before_anything_is_read(size: int) -> None:
    # Nothing follows the header, so only the length itself can end the run before the clock does.
    def tell(stage: Stage) -> None:
        stage.send(HEADER.pack(REPORT, size))
        sleep_forever()

    outcome = _run(lying(tell))
    _assert_fault(outcome)
    assert f"frame of {size} bytes, at most" in str(outcome.message)


def test_there_are_enough_lies() -> None:
    assert len(FAULTS) + len(START_LIES) >= 100


@pytest.mark.parametrize("name", FAULTS)
def test_lies_about_the_job(name: str) -> None:
    _assert_fault(_run(lying(FAULTS[name])))


@pytest.mark.parametrize("output", [b"NaN", b"[-Infinity]", b'{"a":1,"a":2}', b"1e999"])
def test_a_result_that_readers_would_take_differently(output: bytes) -> None:
    # A job cannot write these, but to believe them would be no worse than not to.
    outcome = _run(lying(_report(output=output)))
    assert (outcome.reason, outcome.exit_code, outcome.output) == ("not-json", 1, None)


@pytest.mark.parametrize("status", [1, 70, 255])
def test_a_good_report_of_a_worker_that_fails(status: int) -> None:
    _assert_fault(_run(lying(_report(), status=status)))


def test_a_worker_that_does_not_wait_to_be_dismissed() -> None:
    # Whether the supervisor meets it alive or dead is chance; neither may matter.
    for _ in range(10):
        assert _run(lying(lambda stage: stage.report())).reason == "ok"


def test_what_killed_it_is_told() -> None:
    outcome = _run(lying(_dies(signal.SIGSEGV)))
    assert outcome.signal == signal.SIGSEGV
    assert "SIGSEGV" in str(outcome.message)
    outcome = _run(lying(_dies(signal.SIGSYS)))
    assert outcome.signal == signal.SIGSYS
    assert "seccomp" in str(outcome.message)


# ---- time -----------------------------------------------------------------------------------


def _stays(stage: Stage) -> None:
    sleep_forever()


def _stops_itself(stage: Stage) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _reports_too_late(stage: Stage) -> None:
    time.sleep(WALL_NS / 1e9 + 0.2)
    stage.report()
    stage.be_dismissed()


def _drips(stage: Stage) -> None:
    for byte in frame(REPORT, REPORT_BYTES):
        stage.send(bytes((byte,)))
        time.sleep(0.01)


def _ignores_every_signal(stage: Stage) -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    sleep_forever()


@pytest.mark.parametrize(
    "lie", [_stays, _stops_itself, _reports_too_late, _drips, _ignores_every_signal]
)
def test_the_supervisors_own_clock(lie: Lie) -> None:
    outcome = _run(lying(lie))
    assert (outcome.status, outcome.reason, outcome.exit_code) == ("limit", "wall", 124)
    assert outcome.ended_by == "supervisor"
    assert outcome.output is None
    assert outcome.usage.fuel is None
    assert (outcome.usage.wall_ns or 0) >= WALL_NS


def test_a_worker_that_never_reads_its_job() -> None:
    def main(requests: int, reports: int, parent: int) -> None:
        os.read(requests, 1)
        send(reports, READY_FRAME)
        sleep_forever()

    outcome = _run(main, _request(padding=1 << 20))
    assert (outcome.reason, outcome.ended_by) == ("wall", "supervisor")


def test_a_report_without_reading_the_job() -> None:
    # A pipe holds 64 KiB: this request fills it to the last byte, so no dismissal fits.
    def main(requests: int, reports: int, parent: int) -> None:
        os.read(requests, 1)
        send(reports, READY_FRAME)
        send(reports, frame(REPORT, REPORT_BYTES))
        sleep_forever()

    bare = len(pack_request(_request())) + HEADER.size
    _assert_fault(_run(main, _request(padding=65536 - bare)))


# ---- the snapshot ---------------------------------------------------------------------------


def _snapshot(*parts: bytes, digest: bytes | None = None) -> Lie:
    def tell(stage: Stage) -> None:
        stage.report(memory_digest=IMAGE_DIGEST if digest is None else digest)
        for part in parts:
            stage.send(part)
        stage.be_dismissed()

    return tell


IMAGE = bytes(GUEST_PAGES * PAGE_BYTES)
_PAGE_DIGEST = hashlib.sha256(bytes(4096)).digest()
IMAGE_DIGEST = hashlib.sha256(_PAGE_DIGEST * (len(IMAGE) // 4096)).digest()


def test_a_good_snapshot_is_kept() -> None:
    worker = Worker.start(lying(_snapshot(frame(SNAPSHOT, IMAGE))))
    worker.wait_ready()
    answer = worker.run(_request(snapshot=True))
    assert (answer.fault, answer.snapshot) == (None, IMAGE)


def test_a_snapshot_of_other_memory_than_was_reported_is_a_fault() -> None:
    lie = _snapshot(frame(SNAPSHOT, IMAGE), digest=bytes(32))
    _assert_fault(_run(lying(lie), _request(snapshot=True)))


@pytest.mark.parametrize(
    "parts",
    [
        (frame(SNAPSHOT, IMAGE[:-1]),),
        (frame(SNAPSHOT, b""),),
        (frame(SNAPSHOT, IMAGE + b"\0"),),
        (HEADER.pack(SNAPSHOT, 0xFFFFFFFF),),
        (frame(REPORT, REPORT_BYTES),),
        (frame(BROKEN, b"x"),),
        (frame(SNAPSHOT, IMAGE), frame(SNAPSHOT, IMAGE)),
        (frame(SNAPSHOT, IMAGE), b"\0"),
    ],
    ids=["short", "empty", "long", "4 GiB", "report", "breakdown", "twice", "extra"],
)
def test_wrong_snapshots(parts: tuple[bytes, ...]) -> None:
    _assert_fault(_run(lying(_snapshot(*parts)), _request(snapshot=True)))


@pytest.mark.parametrize("parts", [(), (frame(SNAPSHOT, IMAGE)[:-1],)], ids=["none", "most"])
def test_a_snapshot_that_does_not_come(
    monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(supervisor, "SNAPSHOT_SECONDS", 0.3)
    outcome = _run(lying(_snapshot(*parts)), _request(snapshot=True))
    _assert_fault(outcome)
    assert "snapshot" in str(outcome.message)


# ---- a whole run ----------------------------------------------------------------------------

LAUNCHER = Path(__file__).parent.parent / "support" / "run_lying.py"


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("honest", "ok"),
        ("silent", "worker-fault"),
        ("garbage", "worker-fault"),
        ("twice", "worker-fault"),
        ("no-json", "worker-fault"),
        ("early", "worker-fault"),
        ("breakdown", "worker-fault"),
        ("opens", "worker-fault"),
        ("stays", "wall"),
    ],
)
def test_a_whole_run_with_a_confined_liar(home: Home, lie: str, reason: str) -> None:
    command = (sys.executable, "-P", str(LAUNCHER), lie)
    job = home.job("return 1")
    result = home.run("run", job, "--timeout", "300ms", "--json", command=command)
    codes = {"ok": 0, "worker-fault": 125, "wall": 124}
    assert result.returncode == codes[reason], result.message
    assert not has_traceback(result)
    assert result.json["outcome"]["reason"] == reason
    predicate = home.predicate()
    assert predicate["outcome"]["reason"] == reason
    if reason != "ok":
        assert predicate["output"] is None
        assert predicate["usage"]["fuel"] is None
        assert predicate["usage"]["memoryDigest"] is None
        assert predicate["usage"]["linearMemoryPeak"] is None
        assert result.json["output"] is None
    assert b"\x1b" not in result.stdout + result.stderr
    if lie == "opens":
        assert result.json["outcome"]["signal"] == signal.SIGSYS
        assert predicate["outcome"]["signal"] == signal.SIGSYS
