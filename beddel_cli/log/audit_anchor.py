"""Checkpoints kept outside the log: written to a file, a git branch or syslog, and read back.

A log whose key was stolen can be written anew; a checkpoint that somebody else holds cannot. Three
places are served: a file, to which one is added at its end; a branch of a git repository, which
takes one commit for each and never touches what is checked out; and syslog, one line for each.
Whatever holds checkpoints can be read back: such a file, lines of a syslog file, `.tlog-proof`
files (every receipt's proof is an anchor), a folder of them, or `git:REPOSITORY`.
"""

from __future__ import annotations

import binascii
import errno
import os
import stat

from beddel_cli.errors import LedgerError, UnverifiableError, UsageError, VerificationError
from beddel_cli.home import explain_write
from beddel_cli.log.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    parse_note,
    parse_proof,
    verify_checkpoint,
)
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from beddel_cli.log.checkpoint import VerifyingKey

GIT_BRANCH = "refs/heads/beddel-anchors"
# What tells git of another repository than the one named: a hook's environment has some of them.
# Source: git rev-parse --local-env-vars; git-receive-pack(1) on quarantine.
GIT_LOCAL_VARIABLES = frozenset(
    f"GIT_{name}"
    for name in (
        *("ALTERNATE_OBJECT_DIRECTORIES", "COMMON_DIR", "CONFIG", "CONFIG_COUNT"),
        *("CONFIG_PARAMETERS", "DIR", "GRAFT_FILE", "IMPLICIT_WORK_TREE", "INDEX_FILE"),
        *("INTERNAL_SUPER_PREFIX", "NAMESPACE", "NO_REPLACE_OBJECTS", "OBJECT_DIRECTORY"),
        *("PREFIX", "QUARANTINE_PATH", "REF_FORMAT", "REPLACE_REF_BASE", "SHALLOW_FILE"),
        *("WORK_TREE",),
    )
)
SYSLOG_SOCKET = "/dev/log"
PROOF_SUFFIX = ".tlog-proof"
MAX_ANCHOR_BYTES = 256 << 20

_SYSLOG_MARK = "beddel-cli-checkpoint "
_SYSLOG_PRIORITY = 1 * 8 + 5  # user.notice: RFC 5424 section 6.2.1
_GIT_FILE = "checkpoint"
_PROOF_START = b"c2sp.org/tlog-proof@"
_DASH = "\N{EM DASH} ".encode()


@record
class Anchors:
    """The checkpoints of one log that were found and whose signatures are good.

    Attributes:
        others: how many of other logs stood among them.
        passed_over: lines of syslog, where anybody may write, that claim to hold a checkpoint and
            hold none that a given key signed.
    """

    checkpoints: tuple[Checkpoint, ...]
    others: int
    passed_over: int = 0


def read_anchors(place: str, origin: str, keys: Iterable[VerifyingKey]) -> Anchors:
    """Read the checkpoints of a log from where they are kept.

    Args:
        place: a file, a folder, or `git:REPOSITORY`.

    Raises:
        UnverifiableError: there is none of this log, or one by a key that was not given.
        VerificationError: one of this log is malformed or not signed by its key.
        LedgerError: the place cannot be read.
    """
    known = tuple(keys)
    found: list[Checkpoint] = []
    others = passed_over = 0
    for note, anybody in _notes(place):
        try:
            if parse_checkpoint(parse_note(note).text).origin != origin:
                others += 1
            else:
                found.append(verify_checkpoint(note, known)[0])
        except (VerificationError, UnverifiableError):
            if not anybody:
                raise
            passed_over += 1
    if not found:
        beside = f", only of {others} others" if others else ""
        raise UnverifiableError(
            f"{place!r} holds no checkpoint of log {origin!r}{beside}: another log, or a new one "
            "in its place",
            expected=origin,
        )
    return Anchors(tuple(found), others, passed_over)


def check_place(place: str) -> None:
    """Return if checkpoints could be kept at such a place.

    Args:
        place: `file:PATH`, `git:REPOSITORY` or `syslog`.

    Raises:
        UsageError: there is no such kind of place.
    """
    kind, _, rest = place.partition(":")
    if place != "syslog" and not (kind in ("file", "git") and rest):
        raise UsageError(
            f"checkpoints cannot be kept at {place!r}",
            expected="file:PATH, git:REPOSITORY or syslog",
        )


def write_anchor(place: str, note: bytes) -> str:
    """Keep a checkpoint at a place, and say where it went.

    Args:
        place: one that was checked.
        note: the signed checkpoint.

    Raises:
        LedgerError: it could not be kept there.
    """
    kind, _, rest = place.partition(":")
    if kind == "file":
        append_to_file(rest, note)
        return f"added to {rest}"
    if kind == "git":
        commit = commit_to_git(rest, note)
        return f"commit {commit} on {GIT_BRANCH} of {rest}; push it where others keep it"
    send_to_syslog(note, SYSLOG_SOCKET)
    return f"sent to {SYSLOG_SOCKET}; read it back from the file your syslog writes"


def append_to_file(path: str, note: bytes) -> None:
    """Add a checkpoint at the end of a file, on disk before this returns.

    Raises:
        LedgerError: it could not be written, or what is there holds something else, so that with
            one more none of them could be read.
    """
    import fcntl

    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LedgerError(f"{path!r} is not a regular file, expected one for checkpoints")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            before = _require_checkpoints(descriptor, path)
            data = note + b"\n"
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        message, hint = explain_write(path, error)
        raise LedgerError(message, hint=hint) from error


def _require_checkpoints(descriptor: int, path: str) -> int:
    """Give the size of a file that is empty, or holds whole checkpoints and nothing else."""
    with open(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_ANCHOR_BYTES + 1)
    try:
        if data.startswith(_PROOF_START) or _is_syslog(data):
            raise VerificationError("it is a proof, or of syslog")
        for each in notes_in(data):
            parse_checkpoint(parse_note(each).text)
    except VerificationError as error:
        raise LedgerError(
            f"{path!r} holds something else than whole checkpoints: {error.message}",
            hint="name another file; this one is left as it is",
        ) from error
    return len(data)


def commit_to_git(repository: str, note: bytes) -> str:
    """Commit a checkpoint on a branch of its own; index, worktree and other branches stay.

    Raises:
        LedgerError: git is not there, or would not.
    """
    blob = _git(repository, "hash-object", "-w", "--stdin", given=note).strip().decode()
    tree = _git(repository, "mktree", given=f"100644 blob {blob}\t{_GIT_FILE}\n".encode())
    parent = _git(repository, "rev-parse", "-q", "--verify", GIT_BRANCH, may_fail=True).strip()
    parents = ["-p", parent.decode()] if parent else []
    message = "log checkpoint\n"
    commit = _git(
        repository, "commit-tree", *parents, tree.strip().decode(), given=message.encode()
    )
    name = commit.strip().decode()
    # With the value it was read with: of two at once, the later finds the branch moved.
    _git(repository, "update-ref", GIT_BRANCH, name, parent.decode() or "0" * len(name))
    return name


def send_to_syslog(note: bytes, socket_path: str) -> None:
    """Send a checkpoint as one line; unlike syslog(3), fail where nobody listens.

    Raises:
        LedgerError: nobody listens.
    """
    import socket

    line = f"<{_SYSLOG_PRIORITY}>beddel-cli: {_SYSLOG_MARK}".encode() + binascii.b2a_base64(
        note, newline=False
    )
    last: OSError | None = None
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        try:
            with socket.socket(socket.AF_UNIX, kind) as connection:
                connection.connect(socket_path)
                connection.sendall(line)
                return
        except OSError as error:
            last = error
            if error.errno != errno.EPROTOTYPE:
                break
    reason = os.strerror(last.errno or 0) if last is not None else "no answer"
    raise LedgerError(f"no syslog takes messages at {socket_path!r}: {reason}")


def _notes(place: str) -> Iterator[tuple[bytes, bool]]:
    """Give every checkpoint at a place, as its bytes, and whether anybody may have put it there."""
    if place.startswith("git:"):
        for note in _git_notes(place.removeprefix("git:")):
            yield note, False
        return
    path = place.removeprefix("file:")
    if not os.path.isdir(path):
        data = _read(path)
        if _is_syslog(data):
            for note in _syslog_notes(data):
                yield note, True
        else:
            yield from _signed_notes(data, path)
        return
    for name in _names(path):
        if name.endswith((PROOF_SUFFIX, ".checkpoint")):
            whole = os.path.join(path, name)
            yield from _signed_notes(_read(whole), whole)


def _signed_notes(data: bytes, path: str) -> Iterator[tuple[bytes, bool]]:
    # A file in which nothing is signed is another file, not a changed one.
    proof = data.startswith(_PROOF_START)
    if not proof and not any(line.startswith(_DASH) for line in data.split(b"\n")):
        return
    try:
        for note in notes_in(data):
            yield note, False
    except VerificationError as error:
        raise VerificationError(f"{path!r}: {error.message}") from error


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise LedgerError(
            f"cannot read anchors {folder!r}: {os.strerror(error.errno or 0)}"
        ) from error


def _is_syslog(data: bytes) -> bool:
    return not data.startswith(_PROOF_START) and _SYSLOG_MARK.encode() in data


def _syslog_notes(data: bytes) -> Iterator[bytes]:
    """Give what the lines with our mark hold; of a line that holds half a checkpoint, no bytes."""
    mark = _SYSLOG_MARK.encode()
    for line in data.split(b"\n"):
        if mark in line:
            words = line.partition(mark)[2].split()
            try:
                yield binascii.a2b_base64(words[0] if words else b"", strict_mode=True)
            except ValueError:
                yield b""


def notes_in(data: bytes) -> Iterator[bytes]:
    """Give every checkpoint in a file: a proof's, those of an anchor file, those in syslog lines.

    Raises:
        VerificationError: there is text that is no part of one.
    """
    if data.startswith(_PROOF_START):
        yield parse_proof(data).checkpoint
        return
    if _is_syslog(data):
        yield from _syslog_notes(data)
        return
    lines: list[bytes] = []
    signed = False
    for line in [*data.split(b"\n"), b""]:
        if signed and not line.startswith(_DASH):
            yield b"\n".join([*lines, b""])
            lines, signed = [], False
        if lines or line:
            lines.append(line)
        signed = signed or line.startswith(_DASH)
    if any(lines):
        raise VerificationError("text after the last checkpoint, or one that is cut off")


def _read(path: str) -> bytes:
    try:
        # Non-blocking, so that a FIFO without a writer is an error and not a hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise LedgerError(f"{path!r} is not a regular file, expected one with checkpoints")
            data = file.read(MAX_ANCHOR_BYTES + 1)
    except OSError as error:
        raise LedgerError(
            f"cannot read anchors {path!r}: {os.strerror(error.errno or 0)}"
        ) from error
    if len(data) > MAX_ANCHOR_BYTES:
        raise LedgerError(f"{path!r} is larger than {MAX_ANCHOR_BYTES} bytes")
    return data


def _git_notes(repository: str) -> Iterator[bytes]:
    commits = _git(repository, "rev-list", "--reverse", GIT_BRANCH).split()
    for commit in commits:
        yield _git(repository, "cat-file", "blob", f"{commit.decode()}:{_GIT_FILE}")


def _git(repository: str, *arguments: str, given: bytes = b"", may_fail: bool = False) -> bytes:
    import subprocess

    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "beddel-cli"), ("EMAIL", "beddel-cli@localhost"))
    }
    inherited = {
        name: value for name, value in os.environ.items() if name not in GIT_LOCAL_VARIABLES
    }
    try:
        done = subprocess.run(  # noqa: S603 - fixed words; the repository is the operator's
            ["git", "-C", repository, *arguments],  # noqa: S607 - the operator's own git
            input=given,
            capture_output=True,
            check=False,
            env={**inherited, **identity},
        )
    except OSError as error:
        raise LedgerError(f"cannot start git: {os.strerror(error.errno or 0)}") from error
    if done.returncode and not may_fail:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise LedgerError(f"git {arguments[0]} failed in {repository!r}: {said}")
    return done.stdout if not done.returncode else b""
