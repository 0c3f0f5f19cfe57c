"""Merkle trees, held against RFC 6962's definitions and against another implementation."""

from __future__ import annotations

import hashlib
from functools import cache

import pymerkle
import pytest
from pymerkle import InclusionProof
from pymerkle import verify_consistency as foreign_consistency
from pymerkle import verify_inclusion as foreign_inclusion

from beddel_cli.errors import VerificationError
from beddel_cli.log.merkle import (
    EMPTY_ROOT,
    GrowingTree,
    completed_nodes,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_from_inclusion,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)

MOST = 70
ENTRIES = [b"entry %d" % number for number in range(MOST)]

# Entries and roots of Certificate Transparency's own tests (merkletree/merkle_tree_test.cc).
CT_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def defined_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    left, right = defined_root(entries[:k]), defined_root(entries[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def defined_proof(m: int, entries: list[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2, word for word."""
    if m == len(entries):
        return [] if whole else [defined_root(entries)]
    k = 1
    while k * 2 < len(entries):
        k *= 2
    if m <= k:
        return [*defined_proof(m, entries[:k], whole=whole), defined_root(entries[k:])]
    return [*defined_proof(m - k, entries[k:], whole=False), defined_root(entries[:k])]


class Stored:
    """A tree with all its nodes, as a store keeps them."""

    def __init__(self, entries: list[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [EMPTY_ROOT]
        tree = GrowingTree()
        for index, entry in enumerate(entries):
            leaf = leaf_hash(entry)
            for level, position, value in completed_nodes(index, leaf, self.read):
                self.nodes[level, position] = value
            tree.add(leaf)
            self.roots.append(tree.root())

    def read(self, level: int, position: int) -> bytes:
        return self.nodes[level, position]


@cache
def stored() -> Stored:
    return Stored(ENTRIES)


@cache
def foreign() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    return tree


def test_published_roots() -> None:
    tree = Stored(CT_ENTRIES)
    assert [root.hex() for root in tree.roots[1:]] == list(CT_ROOTS)


def test_published_consistency_proof() -> None:
    tree = Stored(CT_ENTRIES)
    path = consistency_path(2, 5, tree.read)
    assert [step.hex() for step in path] == [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]
    verify_consistency(2, tree.roots[2], 5, tree.roots[5], path)


def test_a_node_is_complete_when_its_last_leaf_is_there() -> None:
    tree = stored()
    for (level, position), value in tree.nodes.items():
        covered = ENTRIES[position << level : (position + 1) << level]
        assert value == defined_root(covered)
    assert len(tree.nodes) == sum(MOST >> level for level in range(MOST.bit_length()))


@pytest.mark.parametrize("size", range(MOST + 1))
def test_roots_as_defined_and_as_elsewhere(size: int) -> None:
    tree = stored()
    assert tree.roots[size] == defined_root(ENTRIES[:size])
    assert subtree_root(0, size, tree.read) == tree.roots[size]
    if size:
        assert foreign().get_root(size) == tree.roots[size]


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_inclusion(size: int) -> None:
    tree = stored()
    for index in range(size):
        path = inclusion_path(index, size, tree.read)
        leaf = leaf_hash(ENTRIES[index])
        verify_inclusion(leaf, index, size, path, tree.roots[size])
        theirs = foreign().prove_inclusion(index + 1, size)
        # Theirs counts from one, begins with the leaf itself and tells left from right.
        ours = InclusionProof("sha256", True, size, index + 1, theirs.rule, [leaf, *path])
        foreign_inclusion(leaf, tree.roots[size], ours)


@pytest.mark.parametrize("size", range(1, MOST + 1))
def test_consistency(size: int) -> None:
    tree = stored()
    for old in range(1, size + 1):
        path = consistency_path(old, size, tree.read)
        verify_consistency(old, tree.roots[old], size, tree.roots[size], path)
        theirs = foreign().prove_consistency(old, size)
        foreign_consistency(tree.roots[old], tree.roots[size], theirs)
        assert path == tuple(defined_proof(old, ENTRIES[:size], whole=True))


def test_their_check_can_fail() -> None:
    tree = stored()
    theirs = foreign().prove_inclusion(3, MOST)
    foreign_inclusion(leaf_hash(ENTRIES[2]), tree.roots[MOST], theirs)
    with pytest.raises(pymerkle.InvalidProof):
        foreign_inclusion(leaf_hash(ENTRIES[3]), tree.roots[MOST], theirs)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (5, 7), (6, 7), (31, 32), (64, 65)])
def test_every_altered_inclusion_proof_is_refused(index: int, size: int) -> None:
    tree = stored()
    path = inclusion_path(index, size, tree.read)
    leaf, root = leaf_hash(ENTRIES[index]), tree.roots[size]
    verify_inclusion(leaf, index, size, path, root)
    wrong = bytes(32)
    altered = [
        (wrong, index, size, path, root),
        (leaf, index, size, path, wrong),
        (leaf, index, size, (*path, wrong), root),
        (leaf, index, size, (wrong, *path), root),
        (leaf, size, size, path, root),
        (leaf, -1, size, path, root),
        *((leaf, index, size, path[:cut], root) for cut in range(len(path))),
        *(
            (leaf, index, size, (*path[:at], wrong, *path[at + 1 :]), root)
            for at in range(len(path))
        ),
        *((leaf, other, size, path, root) for other in range(size) if other != index),
    ]
    for values in altered:
        with pytest.raises(VerificationError):
            verify_inclusion(*values)


def test_a_leaf_does_not_pass_for_an_inner_node() -> None:
    tree = stored()
    left, right = tree.nodes[0, 0], tree.nodes[0, 1]
    inner = node_hash(left, right)
    # A tree of one whose entry is that node's text would have the same root, were it not for the
    # byte in front.
    assert leaf_hash(left + right) != inner
    with pytest.raises(VerificationError):
        verify_inclusion(inner, 0, 2, (), inner)


@pytest.mark.parametrize(("old", "size"), [(1, 2), (4, 7), (3, 7), (6, 8), (64, 70)])
def test_every_altered_consistency_proof_is_refused(old: int, size: int) -> None:
    tree = stored()
    path = consistency_path(old, size, tree.read)
    old_root, root, wrong = tree.roots[old], tree.roots[size], bytes(32)
    verify_consistency(old, old_root, size, root, path)
    altered = [
        (old, wrong, size, root, path),
        (old, old_root, size, wrong, path),
        (old, old_root, size, root, (*path, wrong)),
        (old, old_root, size, root, ()),
        *((old, old_root, size, root, path[:cut]) for cut in range(len(path))),
        *(
            (old, old_root, size, root, (*path[:at], wrong, *path[at + 1 :]))
            for at in range(len(path))
        ),
    ]
    for values in altered:
        with pytest.raises(VerificationError):
            verify_consistency(*values)


def test_ends_of_consistency() -> None:
    root = stored().roots[5]
    verify_consistency(0, EMPTY_ROOT, 5, root, ())
    verify_consistency(5, root, 5, root, ())
    for values in (
        (0, root, 5, root, ()),
        (0, EMPTY_ROOT, 5, root, (root,)),
        (5, bytes(32), 5, root, ()),
        (5, root, 5, root, (root,)),
        (6, root, 5, root, ()),
        (-1, root, 5, root, ()),
    ):
        with pytest.raises(VerificationError):
            verify_consistency(*values)


def test_a_proof_that_never_ends_is_refused_at_once() -> None:
    with pytest.raises(VerificationError, match="does not fit"):
        root_from_inclusion(bytes(32), 0, 1, [bytes(32)] * 100)
