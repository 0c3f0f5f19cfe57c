"""The Merkle tree of RFC 6962: hashes, proofs and their checks. Pure.

A tree of any size is a row of complete subtrees, each twice or more as large as the next. A node is
named by its level (0 is a leaf) and its index there: node (l, i) covers leaves i * 2**l up to but
not with (i + 1) * 2**l. A complete node never changes once it is there, so whoever keeps them all
can prove anything about any size the tree ever had, in as many reads as the tree has levels.

Leaves and inner nodes are hashed with different first bytes, so that neither passes for the other.

Source: RFC 6962 section 2.1; the checks are those of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from hashlib import sha256

from beddel_cli.errors import VerificationError, bug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    ReadNode = Callable[[int, int], bytes]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
MOST_LEAVES = (1 << 63) - 1


def leaf_hash(entry: bytes) -> bytes:
    """Give the hash under which an entry is in the tree."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Give the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def completed_nodes(index: int, leaf: bytes, read: ReadNode) -> list[tuple[int, int, bytes]]:
    """Give each node (level, index, hash) that is complete once this leaf is added at its index.

    The last of them is the subtree that ends in the leaf; what is left of it is a row of
    complete subtrees that were there before.
    """
    level, position, value = 0, index, leaf
    found = [(level, position, value)]
    while position & 1:
        value = node_hash(read(level, position - 1), value)
        level, position = level + 1, position >> 1
        found.append((level, position, value))
    return found


def complete_subtrees(start: int, end: int) -> list[tuple[int, int]]:
    """Name the complete nodes that cover leaves `start` up to `end`, from left to right.

    `start` is a multiple of the largest power of two that is at most `end - start`, as every
    subtree is that RFC 6962 speaks of.
    """
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def join_subtrees(hashes: Sequence[bytes]) -> bytes:
    """Give the root over a row of complete subtrees; of an empty row, that of the empty tree."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def subtree_root(start: int, end: int, read: ReadNode) -> bytes:
    """Give the hash over leaves `start` up to `end`; `start` as for `complete_subtrees`."""
    return join_subtrees([read(level, at) for level, at in complete_subtrees(start, end)])


def inclusion_path(index: int, size: int, read: ReadNode) -> tuple[bytes, ...]:
    """Give the hashes, from the leaf's sibling upwards, that lead from a leaf to the root.

    Source: RFC 6962 section 2.1.1.
    """
    if not 0 <= index < size:
        raise bug(f"asked for a proof of leaf {index} in a tree of {size}")
    found = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_size(end - start)
        if index < middle:
            found.append(subtree_root(middle, end, read))
            end = middle
        else:
            found.append(subtree_root(start, middle, read))
            start = middle
    return tuple(reversed(found))


def consistency_path(old_size: int, size: int, read: ReadNode) -> tuple[bytes, ...]:
    """Give the hashes that show a tree to begin with all the leaves of an older one.

    Source: RFC 6962 section 2.1.2.
    """
    if not 0 < old_size <= size:
        raise bug(f"asked for a proof from {old_size} leaves to {size}")
    found = []
    start, end, whole = 0, size, True
    while old_size < end:
        middle = start + _left_size(end - start)
        if old_size <= middle:
            found.append(subtree_root(middle, end, read))
            end = middle
        else:
            found.append(subtree_root(start, middle, read))
            start, whole = middle, False
    if not whole:
        found.append(subtree_root(start, end, read))
    return tuple(reversed(found))


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Give the root of a tree in which the path leads up from this leaf.

    Raises:
        VerificationError: no tree of this size has a path of this form for this index.
    """
    if not 0 <= index < size:
        raise VerificationError(f"entry {index} is not in a log of {size} entries")
    here, last, value = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise _wrong_length("inclusion", path)
        if here & 1 or here == last:
            value = node_hash(step, value)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            value = node_hash(value, step)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise _wrong_length("inclusion", path)
    return value


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Return if the leaf is at this index of the tree with this size and root.

    Raises:
        VerificationError: the path does not lead from the one to the other.
    """
    found = root_from_inclusion(leaf, index, size, path)
    if found != root:
        raise VerificationError(
            f"the proof does not lead from entry {index} to the root over {size} entries",
            expected=root.hex(),
            got=found.hex(),
        )


def verify_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]
) -> None:
    """Return if the tree begins with all the leaves of the old one, in their order.

    Raises:
        VerificationError: it does not, or the path does not show it.
    """
    if not 0 <= old_size <= size:
        raise VerificationError(f"a log of {old_size} entries cannot be the start of one of {size}")
    if old_size in (0, size):
        expected = EMPTY_ROOT if old_size == 0 else root
        if path:
            raise _wrong_length("consistency", path)
        if old_root != expected:
            raise _inconsistent(old_size, size, old_root, expected)
        return
    steps = list(path)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        raise _wrong_length("consistency", path)
    old_found, found = _roots_from_consistency(old_size, size, steps)
    if old_found != old_root or found != root:
        raise _inconsistent(old_size, size, root, found)


def _roots_from_consistency(
    old_size: int, size: int, steps: Sequence[bytes]
) -> tuple[bytes, bytes]:
    here, last = old_size - 1, size - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise _wrong_length("consistency", steps)
        if here & 1 or here == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, step)
        here, last = here >> 1, last >> 1
    if last != 0:
        raise _wrong_length("consistency", steps)
    return old, new


class GrowingTree:
    """A tree that is given its leaves one by one and keeps only its row of complete subtrees.

    Args:
        size: leaves that are in it unknown; its roots are then of no tree there was.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self._row = [EMPTY_ROOT] * size.bit_count()

    def add(self, leaf: bytes) -> list[bytes]:
        """Add one leaf hash at the end; give the inner nodes it completes, from below."""
        value, position = leaf, self.size
        completed = []
        while position & 1:
            value = node_hash(self._row.pop(), value)
            completed.append(value)
            position >>= 1
        self._row.append(value)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Give the root over the leaves so far."""
        return join_subtrees(self._row)

    def copy(self) -> GrowingTree:
        """Give a tree that grows on from here by itself."""
        tree = GrowingTree()
        tree.size, tree._row = self.size, self._row.copy()
        return tree


def _left_size(size: int) -> int:
    """Give the largest power of two that is smaller than a size of two or more."""
    return 1 << ((size - 1).bit_length() - 1)


def _wrong_length(what: str, path: Sequence[bytes]) -> VerificationError:
    return VerificationError(f"the {what} proof has {len(path)} hashes, which does not fit")


def _inconsistent(old_size: int, size: int, expected: bytes, got: bytes) -> VerificationError:
    return VerificationError(
        f"the log of {size} entries does not begin with the {old_size} of the older one",
        expected=expected.hex(),
        got=got.hex(),
    )
