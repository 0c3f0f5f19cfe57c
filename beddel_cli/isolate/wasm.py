"""The engine host: wasmtime's C API through a thin ctypes layer.

Importing the `wasmtime` package costs four interpreter starts' worth of declarations that a run
never uses; this binds the twenty functions it does use. The structures below belong to the version
pinned in pyproject.toml. Code compiled elsewhere is accepted only after the engine itself compared
its version and settings (`wasmtime_module_deserialize`), so a mismatch is an error, not a crash.

Everything here runs in the worker, never in the process that holds the signing key, except
`compile_module`, which only ever sees the guest that we ship.

Source: https://docs.wasmtime.dev/c-api/
"""

from __future__ import annotations

import ctypes
import os
import sys

from beddel_cli.errors import GuestError
from beddel_cli.isolate.engine_settings import (
    MAX_WASM_STACK_BYTES,
    SETTINGS,
    baseline_target,
    library_folder,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Traps as wasmtime numbers them (wasmtime/trap.h); the rest are reported by number.
TRAP_STACK_OVERFLOW = 0
TRAP_INTERRUPT = 10
TRAP_OUT_OF_FUEL = 11

_pointer = ctypes.c_void_p
_size = ctypes.c_size_t
_u64 = ctypes.c_uint64
_i64 = ctypes.c_int64
_bool = ctypes.c_bool

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wasm_config_new": (_pointer, ()),
    "wasm_engine_new_with_config": (_pointer, (_pointer,)),
    "wasm_engine_delete": (None, (_pointer,)),
    "wasm_byte_vec_delete": (None, (_pointer,)),
    "wasm_trap_delete": (None, (_pointer,)),
    "wasm_trap_message": (None, (_pointer, _pointer)),
    "wasmtime_config_target_set": (_pointer, (_pointer, ctypes.c_char_p)),
    "wasmtime_config_max_wasm_stack_set": (None, (_pointer, _size)),
    "wasmtime_context_get_fuel": (_pointer, (_pointer, _pointer)),
    "wasmtime_context_set_epoch_deadline": (None, (_pointer, _u64)),
    "wasmtime_context_set_fuel": (_pointer, (_pointer, _u64)),
    "wasmtime_engine_increment_epoch": (None, (_pointer,)),
    "wasmtime_error_delete": (None, (_pointer,)),
    "wasmtime_error_message": (None, (_pointer, _pointer)),
    "wasmtime_func_call_unchecked": (_pointer, (_pointer, _pointer, _pointer, _size, _pointer)),
    "wasmtime_instance_export_get": (
        _bool,
        (_pointer, _pointer, ctypes.c_char_p, _size, _pointer),
    ),
    "wasmtime_instance_new": (
        _pointer,
        (_pointer, _pointer, _pointer, _size, _pointer, _pointer),
    ),
    "wasmtime_memory_data": (_pointer, (_pointer, _pointer)),
    "wasmtime_memory_data_size": (_size, (_pointer, _pointer)),
    "wasmtime_module_delete": (None, (_pointer,)),
    "wasmtime_module_deserialize": (_pointer, (_pointer, ctypes.c_char_p, _size, _pointer)),
    "wasmtime_module_deserialize_file": (_pointer, (_pointer, ctypes.c_char_p, _pointer)),
    "wasmtime_module_new": (_pointer, (_pointer, ctypes.c_char_p, _size, _pointer)),
    "wasmtime_module_serialize": (_pointer, (_pointer, _pointer)),
    "wasmtime_store_context": (_pointer, (_pointer,)),
    "wasmtime_store_delete": (None, (_pointer,)),
    "wasmtime_store_limiter": (None, (_pointer, _i64, _i64, _i64, _i64, _i64)),
    "wasmtime_store_new": (_pointer, (_pointer, _pointer, _pointer)),
    "wasmtime_trap_code": (_bool, (_pointer, _pointer)),
}


class _Bytes(ctypes.Structure):
    _fields_ = (("size", _size), ("data", _pointer))


class _Instance(ctypes.Structure):
    _fields_ = (("store_id", _u64), ("private", _size))


class _Func(ctypes.Structure):
    _fields_ = (("store_id", _u64), ("private", _pointer))


class _Memory(ctypes.Structure):
    # Two nested C structs, flattened: {u64, u32} padded to 16 bytes, then u32.
    _fields_ = (
        ("store_id", _u64),
        ("private1", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("private2", ctypes.c_uint32),
    )


class _ExternUnion(ctypes.Union):
    _fields_ = (("func", _Func), ("memory", _Memory), ("room", _u64 * 4))


class _Extern(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint8), ("of", _ExternUnion))


class TrapError(Exception):
    """Guest code was stopped by the engine. `code` is wasmtime's trap number, None if unnamed."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code


class EngineError(GuestError):
    """The engine refused what it was asked: its own words, nothing of ours added."""


def load_library() -> Any:
    """Open wasmtime's shared library and declare the functions used here.

    Raises:
        GuestError: there is none for this machine.
    """
    machine = os.uname().machine
    path = f"{library_folder()}/{sys.platform}-{machine}/_libwasmtime.so"
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise GuestError(
            f"wasmtime has no usable library for {sys.platform} on {machine}", got=str(error)
        ) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class Engine:
    """An engine with our settings. One per process; not shared between threads but for `interrupt`.

    Args:
        target: compile for this triple instead of this very processor.
        threads: compile on several threads, which then stay: never in a process to be confined.

    Raises:
        EngineError: the target is not one this engine can compile for.
    """

    def __init__(self, library: Any, *, target: str | None = None, threads: bool = False) -> None:
        self.library = library
        config = library.wasm_config_new()
        for name, value in (*SETTINGS, ("parallel_compilation", threads)):
            setter = getattr(library, f"wasmtime_config_{name}_set")
            setter.restype, setter.argtypes = None, (_pointer, _bool)
            setter(config, value)
        library.wasmtime_config_max_wasm_stack_set(config, MAX_WASM_STACK_BYTES)
        if target is not None:
            self.check(library.wasmtime_config_target_set(config, target.encode()))
        self.handle: int = library.wasm_engine_new_with_config(config)

    def check(self, error: int | None) -> None:
        """Turn a `wasmtime_error_t*` into EngineError; None is success."""
        if error:
            text = self._text(error, "wasmtime_error_message")
            self.library.wasmtime_error_delete(error)
            raise EngineError(text)

    def trap(self, trap: int) -> TrapError:
        """Turn a `wasm_trap_t*` into an exception to raise."""
        code = ctypes.c_uint8()
        named = self.library.wasmtime_trap_code(trap, ctypes.byref(code))
        text = self._text(trap, "wasm_trap_message")
        self.library.wasm_trap_delete(trap)
        return TrapError(code.value if named else None, text)

    def _text(self, pointer: int, reader: str) -> str:
        message = _Bytes()
        getattr(self.library, reader)(pointer, ctypes.byref(message))
        text = ctypes.string_at(message.data, message.size).rstrip(b"\0")
        self.library.wasm_byte_vec_delete(ctypes.byref(message))
        return text.decode("utf-8", "replace")

    def interrupt(self) -> None:
        """Make every store past its deadline of one epoch. Safe from any thread."""
        self.library.wasmtime_engine_increment_epoch(self.handle)

    def compile(self, wasm: bytes) -> bytes:
        """Give precompiled native code for a module.

        Raises:
            EngineError: not a module that these settings accept.
        """
        module = _pointer()
        self.check(
            self.library.wasmtime_module_new(self.handle, wasm, len(wasm), ctypes.byref(module))
        )
        code = _Bytes()
        self.check(self.library.wasmtime_module_serialize(module, ctypes.byref(code)))
        data = ctypes.string_at(code.data, code.size)
        self.library.wasm_byte_vec_delete(ctypes.byref(code))
        self.library.wasmtime_module_delete(module)
        return data

    def load_file(self, path: bytes) -> int:
        """Map precompiled code from a file that the caller has vetted; gives a module handle.

        Raises:
            EngineError: made by another wasmtime version, for other settings or another processor.
        """
        module = _pointer()
        self.check(
            self.library.wasmtime_module_deserialize_file(self.handle, path, ctypes.byref(module))
        )
        return int(module.value or 0)

    def load_bytes(self, code: bytes) -> int:
        """Load precompiled code from vetted bytes; raises as `load_file`."""
        module = _pointer()
        self.check(
            self.library.wasmtime_module_deserialize(
                self.handle, code, len(code), ctypes.byref(module)
            )
        )
        return int(module.value or 0)


class Store:
    """One fresh isolate: a store with hard limits and one instance that imports nothing.

    Use as a context manager; leaving it frees the instance and its memory.

    Raises:
        EngineError: the module needs more memory than `memory_bytes` at its start.
        TrapError: a start function trapped.
    """

    def __init__(self, engine: Engine, module: int, *, memory_bytes: int, fuel: int) -> None:
        library = self._library = engine.library
        self._engine = engine
        self._handle: int = library.wasmtime_store_new(engine.handle, None, None)
        self._context: int = library.wasmtime_store_context(self._handle)
        # memory bytes, table elements, instances, tables, memories. A limit holds for each memory
        # alone, so a module gets exactly one.
        library.wasmtime_store_limiter(self._handle, memory_bytes, 4096, 1, 4, 1)
        library.wasmtime_context_set_epoch_deadline(self._context, 1)
        self._trap = _pointer()
        self._instance = _Instance()
        self._functions: dict[bytes, _Func] = {}
        try:
            engine.check(library.wasmtime_context_set_fuel(self._context, fuel))
            error = library.wasmtime_instance_new(
                self._context,
                module,
                None,
                0,
                ctypes.byref(self._instance),
                ctypes.byref(self._trap),
            )
            if self._trap.value:
                raise engine.trap(self._trap.value)
            engine.check(error)
            self._memory = _Memory.from_buffer_copy(self._export(b"memory").of.memory)
        except BaseException:
            self.close()
            raise

    def _export(self, name: bytes) -> _Extern:
        found = _Extern()
        if not self._library.wasmtime_instance_export_get(
            self._context, ctypes.byref(self._instance), name, len(name), ctypes.byref(found)
        ):
            raise EngineError(f"the guest does not export {name.decode()!r}")
        return found

    def call(self, name: bytes, *arguments: int) -> int:
        """Call an exported function of integers; gives its i32 result as an unsigned number.

        Raises:
            TrapError: the guest trapped, or ran out of fuel or time.
        """
        function = self._functions.get(name)
        if function is None:
            function = _Func.from_buffer_copy(self._export(name).of.func)
            self._functions[name] = function
        # wasmtime_val_raw_t is 16 bytes; the result replaces the first argument.
        room = max(1, len(arguments))
        values = (_u64 * (2 * room))()
        for position, argument in enumerate(arguments):
            values[2 * position] = argument
        self._trap.value = None
        error = self._library.wasmtime_func_call_unchecked(
            self._context, ctypes.byref(function), values, room, ctypes.byref(self._trap)
        )
        if self._trap.value:
            raise self._engine.trap(self._trap.value)
        self._engine.check(error)
        return int(values[0] & 0xFFFFFFFF)

    def memory_size(self) -> int:
        """Give the linear memory's present size in bytes; it never shrinks."""
        return int(
            self._library.wasmtime_memory_data_size(self._context, ctypes.byref(self._memory))
        )

    def memory_view(self) -> memoryview:
        """Give the linear memory itself, writable. Only valid until the next `call`."""
        base = self._library.wasmtime_memory_data(self._context, ctypes.byref(self._memory))
        return memoryview((ctypes.c_uint8 * self.memory_size()).from_address(base)).cast("B")

    def read(self, address: int, size: int) -> bytes:
        """Copy bytes out of linear memory.

        Raises:
            EngineError: the range lies outside of it.
        """
        if address + size > self.memory_size():
            raise EngineError(f"the guest points outside its memory: {address} + {size}")
        base = self._library.wasmtime_memory_data(self._context, ctypes.byref(self._memory))
        return ctypes.string_at(base + address, size)

    def write(self, address: int, data: bytes) -> None:
        """Copy bytes into linear memory; raises as `read`."""
        if address + len(data) > self.memory_size():
            raise EngineError(f"the guest points outside its memory: {address} + {len(data)}")
        base = self._library.wasmtime_memory_data(self._context, ctypes.byref(self._memory))
        ctypes.memmove(base + address, data, len(data))

    def fuel_left(self) -> int:
        """Give the fuel not yet spent."""
        left = _u64()
        self._engine.check(
            self._library.wasmtime_context_get_fuel(self._context, ctypes.byref(left))
        )
        return left.value

    def close(self) -> None:
        """Free the store; a second call does nothing."""
        if self._handle:
            self._library.wasmtime_store_delete(self._handle)
            self._handle = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compile_module(wasm: bytes) -> bytes:
    """Compile our own guest for this architecture's baseline with the run-time settings.

    Raises:
        EngineError: the module is not one these settings accept.
    """
    return Engine(load_library(), target=baseline_target(), threads=True).compile(wasm)
