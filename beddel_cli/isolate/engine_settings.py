"""Which engine runs the guests, and with which settings. Plain data: nothing is loaded here.

The same list configures the compiler at build time and the engine at run time, names the cached
code and is digested into receipts.
"""

from __future__ import annotations

import os

from beddel_cli.errors import GuestError

# The version the packaged code is compiled for; pyproject.toml pins the same.
BUILT_FOR_WASMTIME = "50.0.1"

# More than this without an async stack aborts the whole process inside the engine.
MAX_WASM_STACK_BYTES = 2 << 20

# Every switch that decides what code is accepted or generated. Only what the guest needs is on.
SETTINGS: tuple[tuple[str, bool], ...] = (
    ("epoch_interruption", True),
    ("consume_fuel", True),
    ("memory_init_cow", True),
    ("cranelift_nan_canonicalization", True),
    ("native_unwind_info", False),
    ("wasm_bulk_memory", True),
    ("wasm_multi_value", True),
    ("wasm_reference_types", True),
    ("wasm_function_references", False),
    ("wasm_gc", False),
    ("wasm_exceptions", False),
    ("wasm_tail_call", False),
    ("wasm_simd", False),
    ("wasm_relaxed_simd", False),
    ("wasm_threads", False),
    ("shared_memory", False),
    ("wasm_multi_memory", False),
    ("wasm_memory64", False),
    ("wasm_wide_arithmetic", False),
    ("wasm_custom_page_sizes", False),
    ("wasm_stack_switching", False),
    ("wasm_component_model", False),
)


def baseline_target() -> str:
    """Give the target triple whose code runs on every processor of this architecture.

    Compiling for the build machine's own processor would make a wheel that faults elsewhere. A
    foreign architecture is never asked for: that aborts the process.
    """
    return f"{os.uname().machine}-unknown-linux-gnu"


def settings_text() -> str:
    """Give the settings as one line, for cache keys and receipts."""
    return ",".join(f"{name}={int(value)}" for name, value in SETTINGS)


def library_folder() -> str:
    """Give the folder of the installed `wasmtime` package, without importing it.

    Raises:
        GuestError: wasmtime is not installed.
    """
    # As `importlib.machinery` names it, which takes a millisecond to import.
    from _frozen_importlib_external import PathFinder

    spec = PathFinder.find_spec("wasmtime")
    if spec is None or not spec.submodule_search_locations:
        raise GuestError(
            "wasmtime is not installed", hint="pip install --force-reinstall beddel-cli"
        )
    return next(iter(spec.submodule_search_locations))


def library_version(folder: str) -> str:
    """Give the version of the wasmtime package in `folder`, or `unknown`.

    The version we pin is looked for by name first: listing a large site-packages costs more than
    the rest of this module.
    """
    parent = os.path.dirname(folder)
    if os.path.isdir(f"{parent}/wasmtime-{BUILT_FOR_WASMTIME}.dist-info"):
        return BUILT_FOR_WASMTIME
    for name in sorted(os.listdir(parent)):
        if name.startswith("wasmtime-") and name.endswith(".dist-info"):
            return name.removeprefix("wasmtime-").removesuffix(".dist-info")
    return "unknown"
