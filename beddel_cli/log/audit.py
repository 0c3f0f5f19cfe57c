"""Judge a log: every hash derived again from the entries' bytes, the head held against a signature
and against anchors. Pure: rows, keys and anchors in, a judgement out.

What convicts is the signature, not the stored tree: a tree that was made to fit altered entries
fits them. So when the head's signature is not good, the checkpoints that were signed on the way are
searched for the last good one; the entry behind it is the first that was touched. The search reads
the log in blocks, of which only the row of subtrees at their start is kept.

A log that is cut at its end, or exchanged for a longer one by whoever has its key, agrees with
itself. Only a checkpoint kept elsewhere, an anchor, tells. So what is anchored and what is not is
said apart.
"""

from __future__ import annotations

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.log.checkpoint import checkpoint_text, ed25519_key_hash, raw_public_key
from beddel_cli.log.log_entry import ABANDONED, FINISHED, STARTED, parse_entry
from beddel_cli.log.merkle import GrowingTree, leaf_hash
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from beddel_cli.log.checkpoint import Checkpoint, VerifyingKey
    from beddel_cli.log.ledger import Row

    # From an index on: the rows of the log, in their order.
    ReadRows = Callable[[int], Iterator[Row]]

MOST_FINDINGS = 100
_BLOCK = 1024


@record
class Finding:
    """Something that is wrong with the log.

    Attributes:
        index: of the first entry that is, or would have to be, different.
    """

    index: int
    what: str


@record
class OpenRun:
    """A run that has a start and no end."""

    index: int
    run_id: str
    at: str


@record
class Judgement:
    """What is known of a log once it was read from its first entry to its last.

    Attributes:
        root: over all entries, as derived from their bytes.
        key_id: of the key that signed the head; None where none of the given ones did.
        findings: what is wrong, by index; of `findings_count`, `MOST_FINDINGS` or a few more.
        runs, open_runs: runs that started, and those of them without an end.
        clock_back: indices of entries that are dated before the one in front of them.
        anchors: how many anchors of this log were compared; None where none was asked for.
        anchored: entries 0 up to this one are as an anchor has them.
    """

    origin: str
    size: int
    root: bytes
    key_id: str | None
    findings: tuple[Finding, ...]
    findings_count: int
    runs: int
    open_runs: tuple[OpenRun, ...]
    clock_back: tuple[int, ...]
    anchors: int | None
    anchored: int


def judge_log(
    origin: str,
    read_rows: ReadRows,
    keys: Iterable[VerifyingKey],
    anchors: Sequence[Checkpoint] | None = None,
) -> Judgement:
    """Read a log from beginning to end and say what is wrong with it.

    Args:
        anchors: checkpoints of this log whose signatures were verified; None to compare none.

    Raises:
        UnverifiableError: there is no entry, no key, or none of the keys signed the head; so
            nothing was verified.
    """
    known = {
        ed25519_key_hash(origin, raw_public_key(key)): key for key in keys if key.kind == "ed25519"
    }
    if not known:
        raise UnverifiableError(
            "there is no public key of the log to verify with, so nothing was verified",
            hint="--key LOG.pub.pem",
        )
    reading = _Reading(origin, anchors or ())
    for row in read_rows(0):
        reading.take(row)
    if reading.last is None and not any(anchor.size for anchor in anchors or ()):
        raise UnverifiableError("the log has no entries, so nothing was verified")
    reading.compare_anchors()
    key_id = _judge_head(reading, known, read_rows)
    return Judgement(
        origin=origin,
        size=reading.tree.size,
        root=reading.tree.root(),
        key_id=key_id,
        findings=tuple(sorted(reading.findings, key=lambda finding: finding.index)),
        findings_count=reading.findings_count,
        runs=reading.runs,
        open_runs=tuple(reading.open_runs.values()),
        clock_back=tuple(reading.clock_back),
        anchors=None if anchors is None else len(anchors),
        anchored=reading.anchored,
    )


class _Reading:
    """What is gathered while the rows go by."""

    def __init__(self, origin: str, anchors: Sequence[Checkpoint]) -> None:
        self.origin = origin
        self.tree = GrowingTree()
        self.blocks = [(0, self.tree.copy())]
        self.findings: list[Finding] = []
        self.findings_count = 0
        self.runs = 0
        self.open_runs: dict[int, OpenRun] = {}
        self.clock_back: list[int] = []
        self.last: Row | None = None
        self.anchored = 0
        self._at = ""
        self._whole = True
        self._anchors = sorted(anchors, key=lambda anchor: anchor.size)
        self._roots = {anchor.size: b"" for anchor in anchors}

    def note(self, index: int, what: str, *, convicts: bool = False) -> None:
        """Take down what is wrong; what a signature or an anchor says never falls under the cap."""
        self.findings_count += 1
        if convicts or len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(index, what))

    def take(self, row: Row) -> None:
        """Take the next row; rows come in the order of their indices."""
        if row.index != self.tree.size:
            self._skip_to(row.index)
        self._hash(row)
        self._read(row)
        self.last = row
        if self.tree.size % _BLOCK == 0:
            self.blocks.append((self.tree.size, self.tree.copy()))
        if self.tree.size in self._roots:
            self._roots[self.tree.size] = self.tree.root()

    def _skip_to(self, index: int) -> None:
        first, last = self.tree.size, index - 1
        which = f"entry {first} is" if first == last else f"entries {first} to {last} are"
        self.note(first, f"{which} missing")
        self._whole = False
        self.tree = GrowingTree(index)

    def _hash(self, row: Row) -> None:
        leaf = leaf_hash(row.data)
        if row.nodes[:32] != leaf:
            self.note(row.index, "its bytes are not those that were put into the tree")
        completed = self.tree.add(leaf)
        if self._whole and row.nodes[32:] != b"".join(completed):
            self.note(row.index, "the tree stored with it is not that of the entries up to it")

    def _read(self, row: Row) -> None:
        try:
            entry = parse_entry(row.data)
        except VerificationError as error:
            self.note(row.index, error.message)
            return
        if entry.at < self._at:
            self.clock_back.append(row.index)
            del self.clock_back[MOST_FINDINGS:]
        self._at = entry.at
        if entry.event == STARTED and entry.run_id is not None:
            self.runs += 1
            self.open_runs[row.index] = OpenRun(row.index, entry.run_id, entry.at)
        elif entry.event in (FINISHED, ABANDONED) and entry.started is not None:
            start = self.open_runs.pop(entry.started, None)
            if start is None or start.run_id != entry.run_id:
                self.note(row.index, f"it ends a run that did not start at entry {entry.started}")

    def compare_anchors(self) -> None:
        """Hold the roots on the way against the anchors."""
        for anchor in self._anchors:
            size = self.tree.size
            if anchor.size > size:
                last = anchor.size - 1
                which = f"entry {last} is" if last == size else f"entries {size} to {last} are"
                what = f"{which} gone: an anchor has {anchor.size} entries"
                self.note(size, what, convicts=True)
            elif anchor.size and self._roots[anchor.size] != anchor.root:
                what = (
                    f"one of entries {self.anchored} to {anchor.size - 1} is not what it was when "
                    f"the anchor over {anchor.size} entries was made"
                )
                self.note(self.anchored, what, convicts=True)
            else:
                self.anchored = max(self.anchored, anchor.size)


def _judge_head(
    reading: _Reading, known: dict[bytes, VerifyingKey], read_rows: ReadRows
) -> str | None:
    """Give the id of the key that signed the head, or find the first entry it did not sign for."""
    row = reading.last
    if row is None:
        return None
    text = checkpoint_text(reading.origin, reading.tree.size, reading.tree.root())
    key_id = _signer(text, row.signature, known)
    if key_id is not None:
        return key_id
    index = _first_unsigned(reading, known, read_rows)
    first = next(read_rows(index), row)
    # A log keeps its key, so one that begins with a given key and goes on with another is bad.
    if index == 0 and first.signature[:4] not in known and not reading.findings:
        raise UnverifiableError(
            f"from entry {index} on the log is signed by a key that was not given",
            hint="--key LOG.pub.pem",
            expected=", ".join(sorted(key.key_id for key in known.values())),
        )
    reading.note(index, "it is the first for which the log's key did not sign", convicts=True)
    return None


def _first_unsigned(
    reading: _Reading, known: dict[bytes, VerifyingKey], read_rows: ReadRows
) -> int:
    """Find the first entry whose checkpoint is not signed, though the one before it is.

    Halving finds one such place; where more than one was touched there may be others.
    """
    good, blocks = 0, reading.blocks
    low, high = 0, len(blocks)
    while high - low > 1:
        middle = (low + high) // 2
        size, tree = blocks[middle]
        row = next(read_rows(size - 1), None)
        text = checkpoint_text(reading.origin, size, tree.root())
        if row is not None and row.index == size - 1 and _signer(text, row.signature, known):
            low, good = middle, size
        else:
            high = middle
    tree = blocks[low][1].copy()
    steps: list[tuple[bytes, bytes]] = []
    for row in read_rows(good):
        if row.index != tree.size or len(steps) == 2 * _BLOCK:
            break
        tree.add(leaf_hash(row.data))
        text = checkpoint_text(reading.origin, tree.size, tree.root())
        steps.append((text, row.signature))
    first, last = 0, len(steps)
    while first < last:
        middle = (first + last) // 2
        if _signer(*steps[middle], known):
            first = middle + 1
        else:
            last = middle
    return good + first


def _signer(text: bytes, signature: bytes, known: dict[bytes, VerifyingKey]) -> str | None:
    """Give the id of the known key that signed a checkpoint, None if none did."""
    key = known.get(signature[:4])
    if key is None:
        return None
    try:
        key.verify(signature[4:], text)
    except VerificationError:
        return None
    return key.key_id
