"""heap.c under random use, against a shadow model in Python.

The allocator is compiled alone into a small module; each example gets a fresh instance with a hard
limit of a few pages, so that running out is an everyday event.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli.guests.javascript import build

LIMIT_PAGES = 8
LIMIT_BYTES = LIMIT_PAGES * build.PAGE_BYTES
HEADER_BYTES = 4
EXPORTS = (
    *("malloc", "calloc", "realloc", "aligned_alloc", "free", "malloc_usable_size"),
    *("used_bytes", "peak_bytes", "refusals"),
)
# Without the C library, which takes half a minute to compile.
LINK_FLAGS = ("-nostdlib", "-Wl,--no-entry", "-Wl,-z,stack-size=16384")
FIGURES = b"""
#include "heap.h"
_Thread_local int errno;
void *memcpy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}
void *memset(void *to, int byte, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((char *)to)[i] = (char)byte;
    return to;
}
uint32_t used_bytes(void) { return heap_figures->used_bytes; }
uint32_t peak_bytes(void) { return heap_figures->peak_bytes; }
uint32_t refusals(void) { return heap_refusals; }
"""


@dataclass(frozen=True)
class Allocator:
    """The compiled module; `start` gives a fresh heap."""

    engine: wasmtime.Engine
    module: wasmtime.Module

    def start(self) -> Heap:
        store = wasmtime.Store(self.engine)
        store.set_limits(memory_size=LIMIT_BYTES)
        exports = wasmtime.Instance(store, self.module, []).exports(store)
        return Heap(store, exports)


@dataclass
class Heap:
    """One instance, and what its blocks must hold: address to contents."""

    store: wasmtime.Store
    exports: wasmtime.InstanceExports  # type: ignore[name-defined,unused-ignore]
    blocks: dict[int, bytes] = field(default_factory=dict)
    functions: dict[str, wasmtime.Func] = field(default_factory=dict)
    marks: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(1, 256)))

    def call(self, name: str, *arguments: int) -> int:
        if name not in self.functions:
            self.functions[name] = cast(wasmtime.Func, self.exports[name])
        result = self.functions[name](self.store, *arguments)
        return cast(int, result or 0) & 0xFFFFFFFF

    @property
    def memory(self) -> wasmtime.Memory:
        return cast(wasmtime.Memory, self.exports["memory"])

    @property
    def base(self) -> int:
        """Where linear memory lies in this process; wasmtime's own read copies byte by byte."""
        return ctypes.addressof(self.memory.data_ptr(self.store).contents)

    def read(self, address: int, size: int) -> bytes:
        return ctypes.string_at(self.base + address, size)

    def take(self, address: int, size: int, alignment: int = 8) -> None:
        """Check a new block against the model, then fill it with a mark of its own."""
        assert address % alignment == 0
        assert address + size <= self.memory.data_len(self.store)
        assert self.call("malloc_usable_size", address) >= size
        for other, contents in self.blocks.items():
            assert address + size <= other or other + len(contents) <= address
        contents = bytes([next(self.marks)]) * size
        ctypes.memmove(self.base + address, contents, size)
        self.blocks[address] = contents

    def allocate(self, name: str, size: int, alignment: int = 8) -> bool:
        arguments = {"malloc": (size,), "calloc": (1, size), "aligned_alloc": (alignment, size)}
        address = self.call(name, *arguments[name])
        if not address:
            return False
        if name == "calloc":
            assert self.read(address, size) == bytes(size)
        self.take(address, size, alignment)
        return True

    def reallocate(self, index: int, size: int) -> bool:
        address, contents = self.pick(index)
        moved = self.call("realloc", address, size)
        if not moved:
            assert self.read(address, len(contents)) == contents
            return False
        kept = min(size, len(contents))
        assert self.read(moved, kept) == contents[:kept]
        del self.blocks[address]
        self.take(moved, size)
        return True

    def release(self, index: int) -> None:
        address, contents = self.pick(index)
        assert self.read(address, len(contents)) == contents
        self.call("free", address)
        del self.blocks[address]

    def pick(self, index: int) -> tuple[int, bytes]:
        addresses = sorted(self.blocks)
        address = addresses[index % len(addresses)]
        return address, self.blocks[address]

    def release_all(self) -> None:
        while self.blocks:
            self.release(0)
        assert self.call("used_bytes") == 0


@pytest.fixture(scope="session")
def allocator(tmp_path_factory: pytest.TempPathFactory) -> Allocator:
    folder = tmp_path_factory.mktemp("heap")
    for name in ("heap.c", "heap.h"):
        (folder / name).write_bytes((Path(build.__file__).parent / name).read_bytes())
    (folder / "figures.c").write_bytes(FIGURES)
    exports = tuple(f"-Wl,--export={name}" for name in EXPORTS)
    units = {"heap.c": build.HEAP_FLAGS, "figures.c": ("-fno-builtin",)}
    wasm = build.compile_units(folder, units, (*LINK_FLAGS, *exports))
    config = wasmtime.Config()
    # Compiler threads would stay, and a worker is only forked from a process without any.
    config.parallel_compilation = False
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, wasm)
    assert not list(module.imports)
    return Allocator(engine, module)


sizes = st.one_of(
    st.integers(0, 64),
    st.integers(0, 5000),
    st.sampled_from([4088, 4096, 4120]),
    st.integers(0, LIMIT_BYTES),
)
operations = st.one_of(
    st.tuples(st.sampled_from(["malloc", "calloc"]), sizes, st.just(8)),
    st.tuples(st.just("aligned_alloc"), sizes, st.sampled_from([8, 16, 64, 256, 4096, 65536])),
    st.tuples(st.just("realloc"), sizes, st.integers(0, 1000)),
    st.tuples(st.just("free"), st.just(0), st.integers(0, 1000)),
    st.tuples(st.just("free"), st.just(0), st.integers(0, 1000)),
)


@settings(max_examples=300, deadline=None)
@given(script=st.lists(operations, max_size=60))
def test_blocks_keep_apart_and_keep_their_contents(
    allocator: Allocator, script: list[tuple[str, int, int]]
) -> None:
    heap = allocator.start()
    for name, size, number in script:
        refusals = heap.call("refusals")
        if name in ("realloc", "free") and not heap.blocks:
            continue
        if name == "free":
            heap.release(number)
            served = True
        elif name == "realloc":
            served = heap.reallocate(number, size)
        else:
            served = heap.allocate(name, size, number)
        assert heap.call("refusals") == refusals + (not served)
        assert heap.call("used_bytes") >= sum(len(block) for block in heap.blocks.values())
        assert heap.call("peak_bytes") >= heap.call("used_bytes")
    for address, contents in heap.blocks.items():
        assert heap.read(address, len(contents)) == contents
    # Neighbours join again: what the heap has grown to can be had in one piece, without growth.
    heap.release_all()
    pages = heap.memory.size(heap.store)
    largest = largest_block(heap)
    assert largest > LIMIT_BYTES - 2 * build.PAGE_BYTES
    assert heap.memory.size(heap.store) >= pages


def largest_block(heap: Heap) -> int:
    """The largest size that one malloc serves, found by halving."""
    low, high = 0, LIMIT_BYTES
    while high - low > 8:
        middle = (low + high) // 2
        address = heap.call("malloc", middle)
        if address:
            heap.call("free", address)
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize("size", [24, 4096, 60000])
def test_running_out_gives_null_and_all_of_it_comes_back(allocator: Allocator, size: int) -> None:
    heap = allocator.start()
    counts = []
    for _ in range(3):
        addresses = list(iter(lambda: heap.call("malloc", size), 0))
        assert len(set(addresses)) == len(addresses)
        counts.append(len(addresses))
        for address in addresses[::2] + addresses[1::2]:
            heap.call("free", address)
        assert heap.call("used_bytes") == 0
    assert counts[0] == counts[1] == counts[2]
    assert counts[0] * max(size + HEADER_BYTES, 16) > (LIMIT_BYTES - build.PAGE_BYTES) * 0.85


def test_memory_grows_by_the_pages_one_request_needs(allocator: Allocator) -> None:
    heap = allocator.start()
    before = heap.memory.size(heap.store)
    assert heap.allocate("malloc", 2 * build.PAGE_BYTES)
    assert heap.memory.size(heap.store) - before <= 2
    assert heap.reallocate(0, 3 * build.PAGE_BYTES)
    assert len(heap.blocks) == 1
    assert heap.memory.size(heap.store) - before <= 3


@pytest.mark.parametrize("size", [1 << 26, (1 << 32) - 1, (1 << 32) - 8])
def test_absurd_requests_are_refused(allocator: Allocator, size: int) -> None:
    heap = allocator.start()
    signed = size - (1 << 32) if size >= 1 << 31 else size
    assert heap.call("malloc", signed) == 0
    assert heap.call("calloc", 1 << 20, 1 << 13) == 0
    assert heap.call("aligned_alloc", 24, 8) == 0
    assert heap.allocate("malloc", 100)


def test_a_second_free_traps(allocator: Allocator) -> None:
    heap = allocator.start()
    address, after = heap.call("malloc", 100), heap.call("malloc", 100)
    assert after > address
    heap.call("free", address)
    with pytest.raises(wasmtime.Trap):
        heap.call("free", address)
