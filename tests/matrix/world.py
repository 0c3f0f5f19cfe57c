"""What attacks are made on: a caller's files, processes and sockets outside, full of canaries.

Every value that counts as evidence is random for each run, and told to no attacker. What an
attack did is read from here, outside: changed files, hurt processes, messages that arrived.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.matrix.attack import Attack

PYTHON = "/usr/bin/python3"
# An id that nobody has.
_NOBODY = 12321
# What LIMITS of the attacks on output allow, and what the kit itself prints.
ALLOWED_OUTPUT_BYTES = (128 << 10) + 4096
KIT = Path(__file__).with_name("inside_kit.py").read_text(encoding="utf-8")
_WITNESS = Path(__file__).with_name("witness.py").read_text(encoding="utf-8")
# Reads a task, a line of JSON, and runs the kit's text on it.
BOOT = (
    "import json,sys\nt=json.loads(sys.stdin.readline())\ng={'__name__':'kit'}\n"
    "exec(compile(t.pop('kit'),'kit','exec'),g)\ng['main'](t)"
)
# The same with the task in a file: a terminal takes no line of such a length.
BOOT_FROM_FILE = BOOT.replace("sys.stdin.readline()", "open('task').readline()")
_BOOT_WITNESS = (
    "import json,sys,types\nt=json.loads(sys.stdin.readline())\n"
    "m=types.ModuleType('tests.matrix.inside_kit')\n"
    "sys.modules.update({'tests':types.ModuleType('tests'),"
    "'tests.matrix':types.ModuleType('tests.matrix'),m.__name__:m})\n"
    "exec(compile(t.pop('kit'),'kit','exec'),m.__dict__)\ng={'__name__':'witness'}\n"
    "exec(compile(t.pop('witness'),'witness','exec'),g)\ng['main'](t)"
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who runs a sandbox: a user id, or None for whoever runs the matrix."""

    name: str
    user: int | None

    def identity(self) -> dict[str, Any]:
        """Give what subprocess needs to start something as them."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.user, "extra_groups": []}

    def own(self, *paths: Path) -> None:
        """Make them the owner of things."""
        if self.user is not None:
            for path in paths:
                os.chown(path, self.user, self.user, follow_symlinks=False)


@dataclass(slots=True)
class World:
    """Everything that belongs to a caller, in one run of a batch of attacks.

    Attributes:
        place: the folder all files lie in; everybody may pass.
        canaries: by name, what only we and the victim know.
        facts: what attackers are told.
        environment: the caller's, with a secret in it.
        inherited: descriptors that the caller left open.
    """

    person: Person
    place: Path
    token: str
    canaries: dict[str, str]
    facts: dict[str, Any]
    environment: dict[str, str]
    inherited: tuple[int, ...] = ()
    witness: subprocess.Popen[str] | None = None
    before: dict[str, object] = field(default_factory=dict)
    after: dict[str, object] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)
    output_bytes: int = 0
    terminal: dict[str, bytes | bool] = field(default_factory=dict)
    pairs: dict[str, dict[str, str | int]] = field(default_factory=dict)

    @property
    def private(self) -> Path:
        """The caller's own folder, which a program is never shown."""
        return self.place / "private"

    @property
    def work(self) -> Path:
        """The folder that a program is given to work on; its path is a canary itself."""
        return self.place / self.canaries["path"] / "work"

    def watched(self, attack: Attack) -> object:
        """Give the state of what an attack is to change."""
        if attack.evidence == "files":
            return state_of_tree(self.private / attack.name)
        if attack.evidence == "work":
            return state_of_tree(self.work / attack.name)
        if attack.evidence == "prey":
            return state_of_process(self.facts["prey"][attack.name], self.facts["prey_memory"])
        return None

    def broke(self, attack: Attack, said: str | None) -> bool:
        """Tell whether an attack broke through, by what it said and what is seen here."""
        kind, _, name = attack.evidence.partition(" ")
        if kind == "canary":
            return said is not None and self.canaries[name] in said
        if kind == "pair":
            return said is not None and str(self.pairs[attack.name][name]) in said
        if kind == "word":
            return said == "broke"
        if kind == "arrived":
            return f"{self.token}-{attack.name}" in self.arrived
        if kind == "path":
            return os.path.lexists(self.path_of(attack))
        if kind == "terminal":
            seen = self.terminal[name]
            # What is only shown as text commands no terminal.
            sign = b"\x1b]0;" if name == "shown" else b""
            return sign + self.token.encode() in seen if isinstance(seen, bytes) else seen
        if kind == "flood":
            return self.output_bytes > ALLOWED_OUTPUT_BYTES
        if kind == "runs":
            return bool(running(f"{self.token}-{attack.name}"))
        return self.after[attack.name] != self.before[attack.name]

    def path_of(self, attack: Attack) -> str:
        """Give where an attack leaves something."""
        return attack.path.format(token=self.token, place=self.place)

    def task(self, what: str, probes: dict[str, str], seconds: float = 5, **more: object) -> bytes:
        """Give the line that tells the kit what to do."""
        facts = self.facts | more
        task = {"kit": KIT, "what": what, "probes": probes, "facts": facts, "seconds": seconds}
        return json.dumps(task).encode() + b"\n"


def state_of_tree(top: Path) -> object:
    """Give what can be seen of a folder and all in it."""
    found = []
    for path in (top, *sorted(top.rglob("*"))):
        facts = os.lstat(path)
        content = None
        if os.path.islink(path):
            content = os.readlink(path)
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        attributes = tuple(os.listxattr(path, follow_symlinks=False))
        found.append((str(path), facts.st_mode, facts.st_uid, facts.st_mtime_ns, facts.st_nlink,
                      content, attributes))  # fmt: skip
    return found


def state_of_process(pid: int, memory: int) -> object:
    """Give what an attack could have changed of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "gone"
    if fields[0] == "Z":
        return "gone"
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(memory)
        content = file.read(64)
    limits = Path(f"/proc/{pid}/limits").read_text()
    adjustment = Path(f"/proc/{pid}/oom_score_adj").read_text()
    # T: stopped. The nice value is the 17th after the name.
    policy = os.sched_getscheduler(pid)
    affinity = tuple(sorted(os.sched_getaffinity(pid)))
    return (
        fields[0] == "T",
        fields[16],
        policy,
        affinity,
        limits,
        adjustment,
        content,
        priority(pid),
    )


def priority(pid: int) -> int:
    """Give a process's I/O priority."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = 31 if os.uname().machine == "aarch64" else 252
    return int(libc.syscall(ctypes.c_long(number), 1, pid))


def running(mark: str) -> list[int]:
    """Give the processes that have a text among their arguments, or in their name."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            told = Path(f"/proc/{name}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if mark.encode() in told:
            found.append(int(name))
    return found


def _canaries() -> dict[str, str]:
    names = ("secret", "path", "environment", "argument", "gone", "ipc", "reply", "home", "cwd")
    made = {name: f"canary{secrets.token_hex(8)}" for name in (*names, "memory")}
    # What /proc shows of a name is 15 bytes.
    made["comm"] = f"c{secrets.token_hex(7)}"
    made["number"] = str(1000 + secrets.randbelow(30000))
    made["size"] = str(10_000_000 + secrets.randbelow(80_000_000))
    made["shadow"] = (
        _line("/etc/shadow") if os.access("/etc/shadow", os.R_OK) else "nobody reads it"
    )
    made |= {"host": socket.gethostname(), "users": _line("/etc/passwd", -1)}
    made |= {"machine": _line("/etc/machine-id"), "command_line": _line("/proc/cmdline")}
    made |= {"boot": _line("/proc/sys/kernel/random/boot_id"), "address": _card()}
    return made


def _line(path: str, which: int = 0) -> str:
    """Give a line of a file of the machine's, or something that is nowhere if there is none."""
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[which]
    except (OSError, IndexError):
        return f"no line {which} of {path}"


def _card() -> str:
    """Give the hardware address of a network card other than loopback's."""
    found = [_line(str(path)) for path in sorted(Path("/sys/class/net").glob("*/address"))]
    return next((each for each in found if each.strip("0:")), "no network card")


def _folders(world: World, attacks: Sequence[Attack]) -> None:
    """Make the caller's files: secrets, a workspace with traps in it, one folder per attack."""
    private, work = world.private, world.work
    made: list[Path] = []

    def folder(path: Path, mode: int = 0o755) -> Path:
        path.mkdir(parents=False)
        path.chmod(mode)
        made.append(path)
        return path

    def file(path: Path, text: str, mode: int = 0o600) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        made.append(path)

    folder(private, 0o700)
    folder(private / "cwd", 0o700)
    folder(private / "home", 0o700)
    folder(private / "home" / ".ssh", 0o700)
    file(private / "secret.txt", world.canaries["secret"])
    file(private / "sized", "")
    os.truncate(private / "sized", int(world.canaries["size"]))
    file(private / "cwd" / "here.txt", world.canaries["cwd"])
    file(private / "home" / ".ssh" / "id_ed25519", world.canaries["home"])
    folder(world.place / "beddel", 0o700)
    folder(world.place / "beddel" / "keys", 0o700)
    _make_key(world)
    folder(work.parent)
    folder(work)
    (work / "link").symlink_to(private / "secret.txt")
    (work / "relative").symlink_to("../../private/secret.txt")
    (work / "to-private").symlink_to(private)
    for each in attacks:
        if each.evidence in ("files", "work"):
            own = folder((private if each.evidence == "files" else work) / each.name)
            file(own / "file", "untouched\n", 0o644)
    shutil.copyfile("/usr/bin/id", work / "set-id")
    made.append(work / "set-id")
    world.person.own(*made, *work.glob("*"))
    _give_set_id(world)


def _make_key(world: World) -> None:
    """Make the key that beddel-cli finds and signs with; its last lines are a canary."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = world.place / "beddel" / "keys" / "signing.pem"
    path.touch(mode=0o600)
    path.write_bytes(pem)
    world.person.own(path)
    world.canaries["key"] = pem.decode().splitlines()[2]


def _give_set_id(world: World) -> None:
    """Make the copy of id(1) in the workspace somebody else's, with the bit that lends their id."""
    if os.geteuid() == 0:
        world.facts["lent"] = 0 if world.person.user else _NOBODY
        os.chown(world.work / "set-id", world.facts["lent"], -1)
        os.chmod(world.work / "set-id", stat.S_ISUID | 0o755)


def _prepare_pairs(world: World, attacks: Sequence[Attack]) -> None:
    """Make what one tenant plants, and what both may know: names, keys and ports."""
    for each in attacks:
        if each.plant:
            canary = f"pair{secrets.token_hex(8)}"
            number = 10000 + secrets.randbelow(22000)
            small = 40 + secrets.randbelow(60)
            world.pairs[each.name] = {"canary": canary, "end": canary[-15:], "number": number}
            world.pairs[each.name]["small"] = f"<{small}>"
    for name in ("plain", "dated"):
        (world.work / name).write_bytes(bytes(100))
        world.person.own(world.work / name)
    os.mkfifo(world.work / "shared-fifo")
    world.person.own(world.work / "shared-fifo")
    world.facts["pair_key"] = secrets.randbelow(1 << 30) + 1
    ports: list[int] = []
    for family, address in ((2, "127.0.0.1"), (10, "::1"), (2, "127.0.0.1")):
        kind = socket.SOCK_DGRAM if len(ports) == 2 else socket.SOCK_STREAM
        with socket.socket(family, kind) as free:
            free.bind((address, 0))
            ports.append(free.getsockname()[1])
    world.facts["ports"] = ports


def _start_witness(world: World, attacks: Sequence[Attack]) -> None:
    hurt = [each.name for each in attacks if each.evidence == "prey"]
    c = world.canaries
    world.facts |= {"abstract": f"abstract-{world.token}", "key": secrets.randbelow(1 << 30) + 1}
    task = {"kit": KIT, "witness": _WITNESS, "prey": len(hurt), "comm": c["comm"]}
    task |= {"private": str(world.private), "work": str(world.work), "token": world.token}
    task |= {name: c[name] for name in ("gone", "reply", "ipc")}
    task |= {"number": int(c["number"]), "memory": [byte ^ 1 for byte in c["memory"].encode()]}
    task |= {name: world.facts[name] for name in ("abstract", "key")}
    world.witness = subprocess.Popen(
        [PYTHON, "-I", "-S", "-c", _BOOT_WITNESS, c["argument"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"WITNESS": c["environment"], "PATH": "/usr/bin:/bin"},
        cwd="/",
        **world.person.identity(),
    )
    assert world.witness.stdin is not None
    assert world.witness.stdout is not None
    world.witness.stdin.write(json.dumps(task) + "\n")
    world.witness.stdin.flush()
    line = world.witness.stdout.readline()
    if not line:
        raise RuntimeError("the witness did not start")
    told = json.loads(line)
    c |= {"abstract": world.facts["abstract"], "port": f":{told['tcp']:04X} "}
    world.facts["prey"] = dict(zip(hurt, told.pop("prey"), strict=True))
    world.facts |= {"witness": told.pop("pid"), "memory_of_witness": told.pop("memory"), **told}


def settle(world: World, attacks: Sequence[Attack]) -> None:
    """See what the attacks have changed; then let the witness tell what arrived, and end."""
    world.after = {each.name: world.watched(each) for each in attacks}
    _end_witness(world)


def _end_witness(world: World) -> None:
    witness = world.witness
    if witness is None or witness.stdin is None or witness.stdout is None:
        return
    if witness.poll() is None:
        # What is under way arrives first.
        time.sleep(0.05)
        witness.stdin.close()
        deadline = time.monotonic() + 10
        while select.select([witness.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = witness.stdout.readline()
            if not line or "end" in json.loads(line):
                break
            world.arrived.append(json.loads(line)["arrived"])


@contextmanager
def world_of(person: Person, attacks: Sequence[Attack], victim: bool = True) -> Iterator[World]:
    """Make a caller's world for these attacks, and take it away again.

    Without a victim there are only files in it.
    """
    place = Path(tempfile.mkdtemp(prefix="matrix-", dir="/var/tmp"))
    place.chmod(0o755)
    token = f"t{secrets.token_hex(6)}"
    world = World(person, place, token, _canaries(), {"token": token}, {})
    descriptors: list[int] = []
    try:
        person.own(place)
        _folders(world, attacks)
        world.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(world.private / "home"),
            "CALLER_SECRET": world.canaries["environment"],
            "BEDDEL_HOME": str(place / "beddel"),
            "BEDDEL_CACHE_DIR": str(place / "cache"),
        }
        world.facts |= {
            "private": str(world.private),
            "secret": str(world.private / "secret.txt"),
            "home": str(world.private / "home"),
            "beddel": str(place / "beddel"),
            "place": str(place),
        }
        descriptors = [os.open(world.private / "secret.txt", os.O_RDONLY),
                       os.open(world.private, os.O_RDONLY)]  # fmt: skip
        for each in descriptors:
            os.set_inheritable(each, True)
        world.inherited = tuple(descriptors)
        world.facts["inherited"] = descriptors
        _prepare_pairs(world, attacks)
        if victim:
            _start_witness(world, attacks)
        world.before = {each.name: world.watched(each) for each in attacks}
        yield world
    finally:
        for each in descriptors:
            os.close(each)
        _clear(world, attacks)


def _clear(world: World, attacks: Sequence[Attack]) -> None:
    witness = world.witness
    if witness is not None:
        _end_witness(world)
        witness.kill()
        witness.wait()
        if witness.stdout is not None:
            witness.stdout.close()
    for pid in running(world.token):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for each in attacks:
        if each.evidence == "path" and os.path.lexists(path := world.path_of(each)):
            os.unlink(path)
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        for left in Path(folder).glob(f"*{world.token}*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
    subprocess.run(["chmod", "-R", "u+rwx", world.place], check=False, capture_output=True)
    shutil.rmtree(world.place)
