"""Judge a log: every hash derived again from the entries' bytes, every signature held against them,
and the roots on the way against anchors. Pure: rows, keys and anchors in, a judgement out.

What convicts is the signature, not the stored tree: a tree that was made to fit altered entries
fits them. Each entry was signed together with all before it, so a good signature vouches for
everything up to its own entry. Behind the newest good one nothing is vouched for, and the entry
that follows it was altered for certain, itself or its signature. A bad signature in front of a good
one was altered alone. So what is named is always what was touched, and one reading is enough.

A log that is cut at its end, or exchanged for a longer one by whoever has its key, agrees with
itself. Only a checkpoint kept elsewhere, an anchor, tells. So what is anchored and what is not is
said apart.
"""

from __future__ import annotations

from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.log.checkpoint import (
    SIGNATURE_BYTES,
    checkpoint_text,
    ed25519_key_hash,
    raw_public_key,
)
from beddel_cli.log.log_entry import ABANDONED, FINISHED, STARTED, parse_entry
from beddel_cli.log.merkle import EMPTY_ROOT, MOST_LEAVES, GrowingTree, leaf_hash
from beddel_cli.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from beddel_cli.log.checkpoint import Checkpoint, VerifyingKey
    from beddel_cli.log.ledger import Row

    # From an index on: the rows of the log, in their order.
    ReadRows = Callable[[int], Iterator[Row]]

MOST_FINDINGS = 100
_BEFORE_ALL = -MOST_LEAVES - 1


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
        agreeing: how many of them the log fits.
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
    agreeing: int
    anchored: int


def judge_log(
    origin: str,
    read_rows: ReadRows,
    keys: Iterable[VerifyingKey],
    anchors: Sequence[Checkpoint] | None = None,
    *,
    places: Mapping[Checkpoint, str] | None = None,
    every_signature: bool = True,
) -> Judgement:
    """Read a log from beginning to end and say what is wrong with it.

    Args:
        anchors: checkpoints of this log whose signatures were verified; None to compare none.
        places: where anchors come from, as far as that is to be told.
        every_signature: else only the newest, which vouches for all entries but for no signature.

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
    reading = _Reading(anchors or (), places or {})
    signatures = _Signatures(origin, known, reading)
    for row in read_rows(_BEFORE_ALL):
        if reading.take(row) and every_signature:
            signatures.take(row)
    if reading.is_empty():
        raise UnverifiableError("the log has no entries, so nothing was verified")
    if reading.last is not None and reading.whole and not every_signature:
        signatures.take(reading.last)
        if signatures.head is None:
            return judge_log(origin, read_rows, known.values(), anchors, places=places)
    reading.compare_anchors()
    signatures.convict_last()
    return Judgement(
        origin=origin,
        size=reading.tree.size,
        root=reading.tree.root(),
        key_id=signatures.head if reading.whole else None,
        findings=tuple(sorted(reading.findings, key=lambda finding: finding.index)),
        findings_count=reading.findings_count,
        runs=reading.runs,
        open_runs=tuple(reading.open_runs.values()),
        clock_back=tuple(reading.clock_back),
        anchors=None if anchors is None else len(anchors),
        agreeing=reading.agreeing,
        anchored=reading.anchored,
    )


class _Reading:
    """What is gathered while the rows go by."""

    def __init__(self, anchors: Sequence[Checkpoint], places: Mapping[Checkpoint, str]) -> None:
        self.tree = GrowingTree()
        self.whole = self._derivable = True
        self.findings: list[Finding] = []
        self.findings_count = 0
        self.runs = 0
        self.open_runs: dict[int, OpenRun] = {}
        self.clock_back: list[int] = []
        self.last: Row | None = None
        self.anchored = self.agreeing = 0
        self._at = ""
        self._waiting: list[tuple[int, str]] = []
        self._more_waiting = 0
        self._anchors = sorted(anchors, key=lambda anchor: anchor.size)
        self._roots = {anchor.size: b"" for anchor in anchors} | {0: EMPTY_ROOT}
        self._places = places

    def is_empty(self) -> bool:
        """Tell whether there is nothing to judge, and no anchor says that there should be."""
        return self.last is None and not self.findings and not any(self._roots)

    def note(self, index: int, what: str, *, convicts: bool = False) -> None:
        """Take down what is wrong; what a signature or an anchor says never falls under the cap."""
        self.findings_count += 1
        if convicts or len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(index, what))

    def take(self, row: Row) -> bool:
        """Take the next row; tell whether all that its signature stands for is there."""
        if row.index < self.tree.size:
            self.note(row.index, "it stands where the log has no entry of this index")
            return False
        if row.index != self.tree.size:
            self._skip_to(row.index)
        self._hash(row)
        self._read(row)
        self.last = row
        if self.tree.size in self._roots:
            self._roots[self.tree.size] = self.tree.root()
        return self.whole

    def _skip_to(self, index: int) -> None:
        first, last = self.tree.size, index - 1
        which = f"entry {first} is" if first == last else f"entries {first} to {last} are"
        self.note(first, f"{which} missing")
        self.whole = self._derivable = False
        self.tree = GrowingTree(index)

    def _hash(self, row: Row) -> None:
        leaf = leaf_hash(row.data)
        if row.nodes[:32] != leaf:
            self.note(row.index, "its bytes are not those that were put into the tree")
            self._derivable = False
        completed = self.tree.add(leaf)
        # What is stored behind a missing or altered entry hangs on what that one was.
        if self._derivable and row.nodes[32:] != b"".join(completed):
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
                self._wait(row.index, f"it ends a run that did not start at entry {entry.started}")

    def _wait(self, index: int, what: str) -> None:
        """Keep what tells of another entry until a signature vouches for both.

        Without one that other entry may be what was altered, and this one as it always was.
        """
        if len(self._waiting) < MOST_FINDINGS:
            self._waiting.append((index, what))
        else:
            self._more_waiting += 1

    def vouched(self) -> None:
        """Take down what waited: a signature over all entries so far is good."""
        for index, what in self._waiting:
            self.note(index, what)
        self.findings_count += self._more_waiting
        self._waiting.clear()
        self._more_waiting = 0

    def compare_anchors(self) -> None:
        """Hold the roots on the way against the anchors."""
        size = self.tree.size
        fitting = [each for each in self._anchors if self._roots[each.size] == each.root]
        self.agreeing = len(fitting)
        self.anchored = max((each.size for each in fitting), default=0)
        for anchor in self._anchors:
            if anchor.size > size:
                last = anchor.size - 1
                which = f"entry {last} is" if last == size else f"entries {size} to {last} are"
                what = f"{which} gone: an anchor has {anchor.size} entries"
                self.note(size, what, convicts=True)
            elif self._roots[anchor.size] != anchor.root:
                self._convict_by(anchor, fitting)

    def _convict_by(self, anchor: Checkpoint, fitting: Sequence[Checkpoint]) -> None:
        """Note where the log is not what an anchor has, and which other anchor that contradicts."""
        first = max((each.size for each in fitting if each.size < anchor.size), default=0)
        last = anchor.size - 1
        which = f"entry {first}" if first == last else f"one of entries {first} to {last}"
        what = f"{which} is not what it was when {self._name(anchor)} was made"
        other = next((each for each in fitting if each.size >= anchor.size), None)
        if other is not None:
            what += f"; {self._name(other)} contradicts that one and fits: there were two such logs"
        self.note(first, what, convicts=True)

    def _name(self, anchor: Checkpoint) -> str:
        place = self._places.get(anchor)
        where = "" if place is None else f" in {place!r}"
        entries = "entry" if anchor.size == 1 else "entries"
        return f"the anchor over {anchor.size} {entries}{where} (root {anchor.root.hex()[:16]}…)"


class _Signatures:
    """What the signatures vouch for; each is judged once all entries up to its own were read.

    Attributes:
        head: id of the key that signed the last entry; None where none did.
    """

    def __init__(self, origin: str, known: dict[bytes, VerifyingKey], reading: _Reading) -> None:
        self.head: str | None = None
        self._origin = origin
        self._known = {each: (key.opened(), key.key_id) for each, key in known.items()}
        self._reading = reading
        # Those since the last good one, and what shows them to be none; and how many more.
        self._bad: list[tuple[int, str | None]] = []
        self._more = self._more_that_are_none = 0
        self._hashes: set[bytes] = set()

    def take(self, row: Row) -> None:
        """Judge the signature of the row that was read last."""
        key_hash, value = row.signature[:4], row.signature[4:]
        if len(self._hashes) < 2:
            self._hashes.add(key_hash)
        if len(row.signature) != SIGNATURE_BYTES:
            self._keep(row.index, f"it has not {SIGNATURE_BYTES} bytes")
        elif not any(value):
            self._keep(row.index, "it is blank")
        elif self._is_good(key_hash, value):
            self.head = self._known[key_hash][1]
            self._convict_passed()
            self._reading.vouched()
        else:
            self._keep(row.index, None)

    def _is_good(self, key_hash: bytes, value: bytes) -> bool:
        if key_hash not in self._known:
            return False
        tree = self._reading.tree
        try:
            self._known[key_hash][0](value, checkpoint_text(self._origin, tree.size, tree.root()))
        except VerificationError:
            return False
        return True

    def _keep(self, index: int, why: str | None) -> None:
        self.head = None
        if len(self._bad) <= MOST_FINDINGS:
            self._bad.append((index, why))
        else:
            self._more += 1
            self._more_that_are_none += why is not None

    def _convict_passed(self) -> None:
        """Note the bad ones in front of a good one: it vouches for their entries, not for them."""
        for index, why in self._bad:
            what = why or "it does not sign what is there, and a later one does"
            self._reading.note(index, f"its signature was altered: {what}")
        self._reading.findings_count += self._more
        self._bad.clear()
        self._more = self._more_that_are_none = 0

    def convict_last(self) -> None:
        """Note the first of the bad ones that no good one follows, and those that are none.

        Raises:
            UnverifiableError: all are by one key, which was not given.
        """
        if not self._bad:
            return
        if not self._reading.findings and self._is_of_a_stranger():
            raise UnverifiableError(
                "from entry 0 on the log is signed by a key that was not given",
                hint="--key LOG.pub.pem",
                expected=", ".join(sorted(key_id for _, key_id in self._known.values())),
            )
        (first, why), *others = self._bad
        what = "it is the first for which the log's key did not sign"
        if why is not None:
            what = f"its signature was altered: {why}; {what}"
        if first < self._reading.tree.size - 1:
            what += f", and nothing vouches for entries {first} to {self._reading.tree.size - 1}"
        self._reading.note(first, what, convicts=True)
        for index, why in others:
            if why is not None:
                self._reading.note(index, f"its signature was altered: {why}")
        self._reading.findings_count += self._more_that_are_none

    def _is_of_a_stranger(self) -> bool:
        none = self._more_that_are_none or any(why for _, why in self._bad)
        return not none and len(self._hashes) == 1 and not self._hashes & self._known.keys()
