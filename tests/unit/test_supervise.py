"""Endings, streams and clocks of a program, each with a leaf and without."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from beddel_cli.process.program import ProgramAnswer
from beddel_cli.record import changed
from tests.support.capabilities import require
from tests.support.fake_launcher import FakeLauncher
from tests.support.processes import children, is_alive, wait_for
from tests.support.supervised import (
    LIMITS,
    SETTINGS,
    Setting,
    Supervised,
    python,
    require_setting,
)


@pytest.fixture(params=["leaf", "tree"])
def with_leaf(request: pytest.FixtureRequest) -> bool:
    """Run once with a cgroup leaf and once without."""
    require("process-namespace")
    if request.param == "leaf":
        require("cgroup")
    return bool(request.param == "leaf")


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Setting:
    """The same table on the fake and behind the real walls."""
    require_setting(SETTINGS[request.param])
    return SETTINGS[request.param]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def ending(answer: ProgramAnswer) -> tuple[object, ...]:
    return (
        answer.exit_code,
        answer.signal,
        answer.start_errno,
        answer.limit,
        answer.stopped,
        answer.fault,
        answer.killed,
    )


SHORT = changed(LIMITS, wall_ns=300_000_000)
IGNORES_TERM = "import signal,time\nsignal.signal(15,signal.SIG_IGN)\nprint(1,flush=True)\n"

ENDINGS = {
    "success": (["true"], LIMITS, (0, None, None, None, None, None, False)),
    "its own code": (["sh", "-c", "exit 3"], LIMITS, (3, None, None, None, None, None, False)),
    "code 255": (["sh", "-c", "exit 255"], LIMITS, (255, None, None, None, None, None, False)),
    "killed itself": (
        ["sh", "-c", "kill -9 $$"],
        LIMITS,
        (None, 9, None, None, None, None, False),
    ),
    "no such program": (["no-such-program"], LIMITS, (None, None, 2, None, None, None, False)),
    "not a program": (["/etc/passwd"], LIMITS, (None, None, 13, None, None, None, False)),
    "timeout": (["sleep", "60"], SHORT, (None, 15, None, "timeout", None, None, False)),
    "timeout, asked and ended well": (
        ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.01; done"],
        SHORT,
        (7, None, None, "timeout", None, None, False),
    ),
    "timeout, does not listen": (
        python(IGNORES_TERM + "time.sleep(60)"),
        SHORT,
        (None, 9, None, "timeout", None, None, True),
    ),
    "timeout, stopped": (
        ["sh", "-c", "kill -STOP $$"],
        SHORT,
        (None, 15, None, "timeout", None, None, False),
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(name: str, setting: Setting) -> None:
    command, limits, expected = ENDINGS[name]
    run = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits)
    assert ending(run.run(command)) == expected
    assert run.launcher is not None
    assert run.launcher.pid is not None
    assert not is_alive(run.launcher.pid)


def test_an_init_that_says_nothing_is_our_fault(with_leaf: bool) -> None:
    answer = Supervised(leaf=with_leaf, silent=True).run(["true"])
    assert answer.fault == "the init of the sandbox died before it could say how the program did"


def test_whoever_holds_the_program_is_named() -> None:
    run = Supervised(leaf=False, silent=True, held_by="the guardian of the program")
    fault = "the guardian of the program died before it could say how the program did"
    assert run.run(["true"]).fault == fault


def test_an_orphan_that_holds_stdout_does_not_delay_the_end(setting: Setting) -> None:
    code = "import os,time\nif os.fork()==0:\n os.setsid()\n time.sleep(60)\nprint('x')"
    answer = Supervised(leaf=setting.leaf, walls=setting.walls).run(python(code))
    assert ending(answer) == (0, None, None, None, None, None, False)
    assert answer.stdout.head == b"x\n"
    assert answer.wall_ns < 15_000_000_000


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "terminated"),
    ],
)
def test_a_signal_to_the_supervisor_ends_the_program(
    number: signal.Signals, expected: str, with_leaf: bool
) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    answer = Supervised(leaf=with_leaf).run(["sleep", "60"])
    timer.join()
    assert ending(answer) == (None, 15, None, None, expected, None, False)


def test_a_signal_before_the_start_is_not_lost(with_leaf: bool) -> None:
    """It arrives once the inbox is open and before anything is polled."""
    seen = []

    def at_once(launcher: FakeLauncher) -> None:
        original = launcher.go

        def go() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append(1)
            original()

        launcher.go = go  # type: ignore[method-assign]

    answer = Supervised(leaf=with_leaf, while_ready=at_once).run(["sleep", "60"])
    assert seen
    assert answer.stopped == "terminated"


def test_a_second_signal_kills_at_once(with_leaf: bool) -> None:
    timers = [threading.Timer(t, os.kill, (os.getpid(), signal.SIGINT)) for t in (0.4, 0.5)]
    for timer in timers:
        timer.start()
    answer = Supervised(leaf=with_leaf).run(python(IGNORES_TERM + "time.sleep(60)"))
    assert ending(answer) == (None, 9, None, None, "interrupted", None, True)
    assert answer.wall_ns < 1_150_000_000, "the grace period is 800 ms"


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    Supervised().run(["true"])
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_both_streams_are_separate_and_exact(with_leaf: bool, pipe: tuple[int, int]) -> None:
    data = bytes(range(256)) * 40
    code = f"import os\nos.write(1,bytes(range(256))*40)\nos.write(2,{data[::-1]!r}[:999])"
    answer = Supervised(leaf=with_leaf, stdout=pipe[1]).run(python(code))
    assert os.read(pipe[0], 1 << 20) == data
    assert answer.stdout.sha256 == hashlib.sha256(data).hexdigest()
    assert (answer.stdout.total_bytes, answer.stdout.passed_bytes) == (len(data), len(data))
    assert answer.stderr.head == data[::-1][:999]
    assert not fcntl.fcntl(pipe[1], fcntl.F_GETFL) & os.O_NONBLOCK, "the caller's pipe as it was"


def test_the_head_is_cut_and_the_digest_is_not() -> None:
    answer = Supervised(head_bytes=3).run(["printf", "abcdef"])
    assert answer.stdout.head == b"abc"
    assert answer.stdout.sha256 == hashlib.sha256(b"abcdef").hexdigest()


def test_output_is_streamed_as_it_comes(pipe: tuple[int, int]) -> None:
    arrived = []

    def listen() -> None:
        arrived.append((os.read(pipe[0], 10), time.monotonic()))

    listener = threading.Thread(target=listen)
    listener.start()
    Supervised(stdout=pipe[1]).run(["sh", "-c", "echo a; sleep 1; echo b"])
    ended = time.monotonic()
    listener.join()
    assert arrived[0][0] == b"a\n"
    assert ended - arrived[0][1] > 0.5


INPUTS = {
    "none": (None, b""),
    "empty": (b"", b""),
    "bytes": (b"abc", b"abc"),
    "more than a pipe holds": (os.urandom(1 << 19), None),
}


@pytest.mark.parametrize("name", INPUTS)
def test_input_as_bytes(name: str, setting: Setting) -> None:
    given, expected = INPUTS[name]
    answer = Supervised(
        leaf=setting.leaf, walls=setting.walls, stdin=given, head_bytes=1 << 20
    ).run(["cat"])
    assert ending(answer) == (0, None, None, None, None, None, False)
    assert answer.stdout.head == (given if expected is None else expected)


def test_input_from_a_descriptor_with_its_end(with_leaf: bool, pipe: tuple[int, int]) -> None:
    data = os.urandom(1 << 19)

    def feed() -> None:
        os.write(pipe[1], b"first\n")
        time.sleep(0.1)
        with open(pipe[1], "wb") as file:
            file.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    run = Supervised(leaf=with_leaf, stdin=pipe[0], head_bytes=1 << 20)
    answer = run.run(["cat"])
    feeder.join()
    assert answer.exit_code == 0
    assert answer.stdout.head == b"first\n" + data
    assert not fcntl.fcntl(pipe[0], fcntl.F_GETFL) & os.O_NONBLOCK, "the caller's pipe as it was"


def test_a_program_that_reads_no_input_ends_all_the_same(setting: Setting) -> None:
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, stdin=bytes(1 << 20)).run(
        ["sh", "-c", "exec <&-; exit 4"]
    )
    assert ending(answer) == (4, None, None, None, None, None, False)


def test_silent_input_does_not_hold_up_the_end(with_leaf: bool, pipe: tuple[int, int]) -> None:
    answer = Supervised(leaf=with_leaf, stdin=pipe[0]).run(["true"])
    assert answer.exit_code == 0


@pytest.mark.parametrize("stream", ["1", "2", "both"])
@pytest.mark.parametrize(("room", "limit"), [(1000, "max_output"), (1001, "max_output")])
def test_output_is_cut_at_its_limit(stream: str, room: int, limit: str, setting: Setting) -> None:
    code = "import os\nwhile 1:\n"
    code += "".join(f" os.write({n},b'x'*999)\n" for n in ("12" if stream == "both" else stream))
    limits = changed(LIMITS, output_bytes=room)
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(python(code))
    assert answer.limit == limit
    assert answer.stdout.passed_bytes + answer.stderr.passed_bytes == room
    for each in (answer.stdout, answer.stderr):
        assert each.sha256 == hashlib.sha256(b"x" * each.passed_bytes).hexdigest()


def test_output_of_just_its_limit_is_no_ending(setting: Setting) -> None:
    limits = changed(LIMITS, output_bytes=6)
    answer = Supervised(leaf=setting.leaf, walls=setting.walls, limits=limits).run(
        ["sh", "-c", "printf abc; printf def >&2"]
    )
    assert ending(answer) == (0, None, None, None, None, None, False)


def test_what_fits_is_passed_on_to_a_slow_reader_after_the_limit(pipe: tuple[int, int]) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    taken = bytearray()

    def read_slowly() -> None:
        while len(taken) < 50_000:
            time.sleep(0.005)
            taken.extend(os.read(pipe[0], 4096))

    reader = threading.Thread(target=read_slowly)
    reader.start()
    limits = changed(LIMITS, output_bytes=50_000)
    answer = Supervised(stdout=pipe[1], limits=limits).run(["yes"])
    reader.join()
    assert answer.limit == "max_output"
    assert len(taken) == answer.stdout.passed_bytes == 50_000


def test_a_caller_who_does_not_read_stops_no_clock(with_leaf: bool, pipe: tuple[int, int]) -> None:
    limits = changed(LIMITS, wall_ns=500_000_000, output_bytes=1 << 30)
    answer = Supervised(leaf=with_leaf, stdout=pipe[1], limits=limits).run(["yes"])
    assert answer.limit == "timeout"
    assert answer.wall_ns < 1_500_000_000
    assert answer.stdout.passed_bytes == 65536
    assert answer.stdout.total_bytes > 65536, "more was read than could be passed on"


def test_output_nobody_takes_in_time_is_not_called_a_success(pipe: tuple[int, int]) -> None:
    limits = changed(LIMITS, wall_ns=500_000_000)
    answer = Supervised(stdout=pipe[1], limits=limits).run(["sh", "-c", "head -c 100000 /dev/zero"])
    assert (answer.exit_code, answer.limit) == (0, "timeout")
    assert answer.stdout.passed_bytes == 65536 < answer.stdout.total_bytes


def test_a_reader_that_is_gone_ends_the_program_as_any_pipe_would(
    with_leaf: bool, pipe: tuple[int, int]
) -> None:
    os.close(pipe[0])
    answer = Supervised(leaf=with_leaf, stdout=pipe[1]).run(["yes"])
    assert ending(answer) == (None, signal.SIGPIPE, None, None, None, None, False)
    assert answer.stdout.passed_bytes == 0


def test_a_full_disk_of_the_caller_is_told() -> None:
    require("full-device")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    answer = Supervised(stdout=descriptor).run(["yes"])
    os.close(descriptor)
    expected = f"standard output could not be written: {os.strerror(errno.ENOSPC)}"
    assert answer.fault == expected


def test_a_regular_file_takes_everything(tmp_path: object) -> None:
    path = f"{tmp_path}/out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    answer = Supervised(stdout=descriptor).run(["head", "-c", "500000", "/dev/zero"])
    os.close(descriptor)
    assert answer.stdout.passed_bytes == os.path.getsize(path) == 500000


def test_a_socket_nobody_reads_stops_no_clock() -> None:
    ours, theirs = socket.socketpair()
    limits = changed(LIMITS, wall_ns=500_000_000, output_bytes=1 << 30)
    answer = Supervised(stdout=ours.fileno(), limits=limits).run(["yes"])
    ours.close()
    assert answer.limit == "timeout"
    assert answer.wall_ns < 1_500_000_000
    arrived = 0
    while data := theirs.recv(1 << 16):
        arrived += len(data)
    theirs.close()
    assert arrived == answer.stdout.passed_bytes > 0


def test_descriptors_are_given_back() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for command in (["true"], ["no-such-program"], ["sleep", "60"]):
        Supervised(stdin=b"x", limits=SHORT).run(command)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_no_process_is_left() -> None:
    code = (
        "import os,time\nfor i in range(5):\n if os.fork()==0:\n  os.setsid()\n  time.sleep(99)\n"
    )
    run = Supervised(limits=SHORT)
    tree: list[int] = []

    def remember(launcher: FakeLauncher) -> None:
        def look() -> None:
            found = wait_for(lambda: children(launcher.pid) or None, what="the program")
            time.sleep(0.1)
            tree.extend((*found, *(each for one in found for each in children(one))))

        threading.Thread(target=look).start()

    run.while_ready = remember
    run.run(python(code + "time.sleep(99)"))
    assert len(tree) == 6, "the control: the program and its five children were seen"
    assert not any(is_alive(pid) for pid in tree)


def test_a_short_program_does_not_wait_for_a_tick() -> None:
    """Its end is told by a descriptor: nothing is polled while waiting for it."""
    fastest = min(Supervised(leaf=False).run(["true"]).wall_ns for _ in range(10))
    assert fastest < 20_000_000


class TestTerminal:
    """A program with a terminal of its own, between it and the caller's."""

    @pytest.fixture
    def outer(self) -> Iterator[tuple[int, int]]:
        require("process-namespace")
        master, slave = os.openpty()
        yield master, slave
        os.close(master)
        os.close(slave)

    def read(self, master: int, seconds: float = 0.3) -> bytes:
        data = b""
        while select.select([master], [], [], seconds)[0]:
            data += os.read(master, 4096)
        return data

    def run(self, outer: tuple[int, int], command: list[str], typed: bytes = b"") -> ProgramAnswer:
        os.write(outer[0], typed)
        return Supervised(stdin=outer[1], stdout=outer[1], terminal=outer[1], limits=SHORT).run(
            command
        )

    def test_it_is_one(self, outer: tuple[int, int]) -> None:
        command = ["sh", "-c", "tty -s <&0 && test -t 1 && test -t 2 && echo yes"]
        answer = self.run(outer, command)
        assert (answer.exit_code, answer.stdout.head) == (0, b"yes\r\n")
        assert self.read(outer[0]) == b"yes\r\n", "no second carriage return, so it was raw"

    def test_the_mode_is_restored(self, outer: tuple[int, int]) -> None:
        import termios

        before = termios.tcgetattr(outer[1])
        during = []

        def look(launcher: FakeLauncher) -> None:
            threading.Timer(0.2, lambda: during.append(termios.tcgetattr(outer[1]))).start()

        run = Supervised(stdin=outer[1], stdout=outer[1], terminal=outer[1], limits=SHORT)
        run.while_ready = look
        assert run.run(["sleep", "60"]).limit == "timeout"
        assert during[0] != before, "the control: it was raw meanwhile"
        assert termios.tcgetattr(outer[1]) == before

    def test_keys_reach_the_program_and_control_c_its_own_terminal(
        self, outer: tuple[int, int]
    ) -> None:
        def type_keys(launcher: FakeLauncher) -> None:
            threading.Timer(0.15, os.write, (outer[0], b"\x03")).start()

        run = Supervised(stdin=outer[1], stdout=outer[1], terminal=outer[1])
        run.while_ready = type_keys
        answer = run.run(["sleep", "60"])
        assert (answer.signal, answer.stopped) == (signal.SIGINT, None)

    def test_size_is_passed_on(self, outer: tuple[int, int]) -> None:
        import struct
        import termios

        fcntl.ioctl(outer[0], termios.TIOCSWINSZ, struct.pack("HHHH", 33, 44, 0, 0))
        answer = self.run(outer, ["stty", "size"])
        assert answer.stdout.head == b"33 44\r\n"

    def test_answers_of_the_terminal_never_become_input_of_the_caller(
        self, outer: tuple[int, int]
    ) -> None:
        asked = threading.Event()

        def answer_late() -> None:
            select.select([outer[0]], [], [], 10)
            os.read(outer[0], 4096)
            time.sleep(0.02)
            os.write(outer[0], b"touch /tmp/owned\n")
            asked.set()

        answering = threading.Thread(target=answer_late)
        answering.start()
        self.run(outer, ["printf", "\\033[6n"])
        answering.join()
        assert asked.is_set()
        assert not select.select([outer[1]], [], [], 0.2)[0], "nothing is left to read"
        os.write(outer[0], b"typed\n")
        assert os.read(outer[1], 100) == b"typed\n", "the control: what comes later is"
