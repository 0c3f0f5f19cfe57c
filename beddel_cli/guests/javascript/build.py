"""Builds the JavaScript guest: `python build.py OUTDIR`.

Three steps, each a pure function of its input once the source is here:

1. fetch: the QuickJS-NG sdist, pinned by its SHA-256, from a local file or the package index.
   Its own build code never runs; the listed files are read out of the archive.
2. compile: zig's C compiler, from the pinned `ziglang` package, makes a module without imports.
   It runs in a temporary folder with relative paths and caches of its own, so neither the user's
   home nor the place of the checkout can reach the bytes.
3. snapshot: the module is started once, and the memory it leaves becomes its data section. What
   ships starts where initialisation ended, and can no longer be told to initialise.

The folder OUTDIR then holds javascript.wasm, javascript.json (facts about it) and licenses/.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import http.client
import io
import json
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import wasmtime

PROJECT = "quickjs-ng"
VERSION = "0.17.0.2"
SDIST_NAME = f"quickjs_ng-{VERSION}.tar.gz"
SDIST_SHA256 = "43d2e48272208721a7aaea8e3f02d4b9318f12ef20cc4f5421b59d9a470706ef"
SDIST_MAX_BYTES = 4 << 20
INDEX_PAGE_MAX_BYTES = 4 << 20
FETCH_TIMEOUT_SECONDS = 60

ENGINE_FOLDER = f"quickjs_ng-{VERSION}/upstream-quickjs/"
ENGINE_FILES = (
    "builtin-array-fromasync.h",
    "builtin-iterator-zip-keyed.h",
    "builtin-iterator-zip.h",
    "cutils.h",
    "dtoa.c",
    "dtoa.h",
    "libregexp-opcode.h",
    "libregexp.c",
    "libregexp.h",
    "libunicode-table.h",
    "libunicode.c",
    "libunicode.h",
    "list.h",
    "quickjs-atom.h",
    "quickjs-c-atomics.h",
    "quickjs-opcode.h",
    "quickjs.c",
    "quickjs.h",
)
ENGINE_LICENCE = f"quickjs_ng-{VERSION}/LICENSE"
OWN_FILES = ("guest.c", "heap.c", "heap.h", "quiet.h")

# What zig links in besides: wasi-libc and the musl code in it, and compiler-rt.
LIBRARY_LICENCES = {
    "wasi-libc": "lib/libc/wasi/LICENSE",
    "wasi-libc-MIT": "lib/libc/wasi/LICENSE-MIT",
    "cloudlibc": "lib/libc/wasi/libc-bottom-half/cloudlibc/LICENSE",
    "musl": "lib/libc/wasi/libc-top-half/musl/COPYRIGHT",
    "zig": "LICENSE",
}

STACK_BYTES = 192 * 1024
MEMORY_MAX_BYTES = 64 << 20  # what the module declares; the host's limiter is the real limit
PAGE_BYTES = 65536
COMPILE_FLAGS = (
    "-target", "wasm32-wasi", "-O3", "-DNDEBUG", "-D_GNU_SOURCE", f"-DSTACK_BYTES={STACK_BYTES}",
    "-fno-sanitize=all", "-mexec-model=reactor", "-I.",
)  # fmt: skip
ENGINE_FLAGS = ("-include", "quiet.h", "-Wno-everything")  # its warnings are not ours to fix
# Or the compiler would see malloc and memset in calloc and make a call of calloc from them.
HEAP_FLAGS = ("-Wall", "-Wextra", "-Werror", "-fno-builtin-malloc", "-fno-strict-aliasing")
LINK_FLAGS = (
    "-s", f"-Wl,-z,stack-size={STACK_BYTES}", "-Wl,--gc-sections",
    f"-Wl,--max-memory={MEMORY_MAX_BYTES}",
)  # fmt: skip
# In the order of linking: what replaces the C library's own must come first.
UNITS: Mapping[str, tuple[str, ...]] = {
    "guest.c": ENGINE_FLAGS,
    "heap.c": HEAP_FLAGS,
    "libregexp.c": ENGINE_FLAGS,
    "libunicode.c": ENGINE_FLAGS,
    "dtoa.c": ENGINE_FLAGS,
}

BUILD_ONLY_EXPORTS = frozenset({"_initialize", "_start", "beddel_init"})
ZERO_RUN_BYTES = 64  # runs of zeros this long are left out of the data section


class GuestBuildError(Exception):
    """The guest cannot be built; the message is one sentence for the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot build the JavaScript guest: {reason}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A module that starts initialised, and what its host needs to know of it."""

    wasm: bytes
    memory_pages: int
    state_address: int


def build(out_folder: Path) -> dict[str, str | int]:
    """Fetch, compile and snapshot; write the results; return what javascript.json says.

    Raises:
        GuestBuildError: the source is not to be had or not the pinned one, or a tool failed.
    """
    archive = fetch_sdist(os.environ)
    snapshot = take_snapshot(compile_guest(archive))
    facts: dict[str, str | int] = {
        "guest": "javascript",
        "quickjs_ng": VERSION,
        "sdist_sha256": SDIST_SHA256,
        "wasm_sha256": hashlib.sha256(snapshot.wasm).hexdigest(),
        "ziglang": metadata.version("ziglang"),
        "memory_pages": snapshot.memory_pages,
        "state_address": snapshot.state_address,
    }
    out_folder.mkdir(parents=True, exist_ok=True)
    (out_folder / "javascript.wasm").write_bytes(snapshot.wasm)
    write_facts(out_folder, facts)
    (out_folder / "licenses").mkdir(exist_ok=True)
    for name, text in licences(archive).items():
        (out_folder / "licenses" / name).write_bytes(text)
    return facts


def write_facts(out_folder: Path, facts: Mapping[str, str | int]) -> None:
    """Write javascript.json."""
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (out_folder / "javascript.json").write_text(text, encoding="utf-8")


def fetch_sdist(environ: Mapping[str, str]) -> bytes:
    """The bytes of the pinned sdist, from BEDDEL_QUICKJS_SDIST or the package index.

    Raises:
        GuestBuildError: there is no such file, the index is out of reach or lacks it, or the
            bytes are not the pinned ones.
    """
    path = environ.get("BEDDEL_QUICKJS_SDIST")
    archive = _read_local(Path(path)) if path else _download(environ)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != SDIST_SHA256:
        source = path or "the package index"
        raise GuestBuildError(
            f"{SDIST_NAME} from {source} has sha256 {digest}, expected {SDIST_SHA256}"
        )
    return archive


def _read_local(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise GuestBuildError(f"BEDDEL_QUICKJS_SDIST={path}: {error.strerror}") from error


def _download(environ: Mapping[str, str]) -> bytes:
    settings = _pip_settings(environ)
    index = settings.get("index-url", "https://pypi.org/simple").rstrip("/") + "/"
    page_url = urllib.parse.urljoin(index, f"{PROJECT}/")
    host = urllib.parse.urlsplit(index).hostname or "the package index"
    context = _tls_context(settings.get("cert"))
    try:
        page = _get(page_url, context, INDEX_PAGE_MAX_BYTES)
        return _get(_find_link(page, page_url), context, SDIST_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:  # URLError, time-outs and TLS failures
        cause = str(error).removeprefix("<urlopen error ").removesuffix(">")
        raise GuestBuildError(
            f"{host} is not reachable ({cause}); put {SDIST_NAME} on this machine and set "
            "BEDDEL_QUICKJS_SDIST to its path"
        ) from error


def _tls_context(certificates: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        raise GuestBuildError(f"pip's certificate file {certificates}: {error}") from error


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The index and certificate pip would use: its files in their order, then its variables."""
    home = Path(environ.get("HOME", "/nonexistent"))
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = [
        Path(folder) / "pip" for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    ]
    own = [home / ".pip", config_home / "pip", Path(sys.prefix)]
    files = [folder / "pip.conf" for folder in [*system, Path("/etc"), *own]]
    files += [Path(environ["PIP_CONFIG_FILE"])] if environ.get("PIP_CONFIG_FILE") else []
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise GuestBuildError(f"{file} is not a pip configuration file: {error}") from error
        for section in ("global", "download"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for key in ("index-url", "cert"):
        value = environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            settings[key] = value
    return settings


def _get(url: str, context: ssl.SSLContext, max_bytes: int) -> bytes:
    """The body behind an http(s) address; a user and password in it become a header."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"}
    if "@" in parts.netloc:
        user_info, _, address = parts.netloc.rpartition("@")
        token = base64.b64encode(urllib.parse.unquote(user_info).encode()).decode()
        headers["Authorization"] = f"Basic {token}"
        url = urllib.parse.urlunsplit(parts._replace(netloc=address))
    if parts.scheme not in ("https", "http"):
        raise GuestBuildError(f"the package index must be an http(s) address, not {parts.scheme}:")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # scheme checked above
    opened = urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_SECONDS, context=context)  # noqa: S310
    with opened as response:
        body: bytes = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise GuestBuildError(f"{url} sent more than {max_bytes} bytes")
    return body


def _find_link(page: bytes, page_url: str) -> str:
    """Where an index page, PEP 691 JSON or PEP 503 HTML, says the sdist is."""
    if page.lstrip().startswith(b"{"):
        files: list[dict[str, Any]] = json.loads(page).get("files", [])
        links: list[str] = [file["url"] for file in files if file.get("filename") == SDIST_NAME]
    else:
        pattern = rf'href="([^"]*/)?({re.escape(SDIST_NAME)})[^"]*"'
        found = re.search(pattern, page.decode("utf-8", "replace"))
        links = [(found[1] or "") + found[2]] if found else []
    if not links:
        raise GuestBuildError(f"{page_url} does not list {SDIST_NAME}")
    return urllib.parse.urljoin(page_url, links[0])


def read_members(archive: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    """The named regular files of a .tar.gz; nothing is written, no link is followed.

    Raises:
        GuestBuildError: one is missing or not a regular file.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None and member.name in names:
                contents[member.name] = file.read()
    for name in names:
        if name not in contents:
            raise GuestBuildError(f"{SDIST_NAME} does not contain {name}")
    return contents


def licences(archive: bytes) -> dict[str, bytes]:
    """The licence texts of everything in the module, by the name of what it covers."""
    texts = {"quickjs-ng": read_members(archive, (ENGINE_LICENCE,))[ENGINE_LICENCE]}
    zig = _ziglang_folder()
    for name, path in LIBRARY_LICENCES.items():
        texts[name] = (zig / path).read_bytes()
    return texts


def _ziglang_folder() -> Path:
    return Path(str(metadata.distribution("ziglang").locate_file("ziglang")))


def compile_guest(archive: bytes, extra_flags: tuple[str, ...] = ()) -> bytes:
    """The guest as zig links it, not yet initialised.

    Raises:
        GuestBuildError: the compiler failed; its own words are on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="beddel-guest-") as name:
        folder = Path(name)
        members = read_members(archive, tuple(ENGINE_FOLDER + file for file in ENGINE_FILES))
        for path, content in members.items():
            (folder / Path(path).name).write_bytes(content)
        for file in OWN_FILES:
            (folder / file).write_bytes((Path(__file__).parent / file).read_bytes())
        return compile_units(folder, UNITS, LINK_FLAGS, extra_flags)


def compile_units(
    folder: Path,
    units: Mapping[str, tuple[str, ...]],
    link_flags: tuple[str, ...],
    extra_flags: tuple[str, ...] = (),
) -> bytes:
    """Compile each unit of a folder with its own flags, two at a time, and link them."""

    def compile_unit(unit: str) -> str:
        target = Path(unit).with_suffix(".o").name
        _zig_cc(folder, (*COMPILE_FLAGS, *units[unit], *extra_flags, "-c", unit, "-o", target))
        return target

    with ThreadPoolExecutor(max_workers=2) as pool:
        objects = tuple(pool.map(compile_unit, units))
    _zig_cc(folder, (*COMPILE_FLAGS, *objects, *link_flags, "-o", "linked.wasm"))
    return (folder / "linked.wasm").read_bytes()


def _zig_cc(folder: Path, arguments: tuple[str, ...]) -> None:
    cache = str(folder / "zig-cache")
    environ = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environ, check=False)  # noqa: S603  # ours
    if ended.returncode:
        raise GuestBuildError(f"the compiler ended with {ended.returncode} at {arguments[-1]}")


# Section numbers. Source: WebAssembly core specification 5.5, binary format of modules.

_CUSTOM, _MEMORY, _GLOBAL, _EXPORT, _START, _CODE, _DATA, _DATA_COUNT = 0, 5, 6, 7, 8, 10, 11, 12


def take_snapshot(wasm: bytes) -> Snapshot:
    """Run the module's initialisation and make the memory it leaves the module's data.

    The stack, which is empty then, and every mutable global must be as they were; the only such
    global is the stack pointer, and the stack lies below all data.

    Raises:
        GuestBuildError: the module has imports, or other mutable globals.
    """
    sections = list(_sections(wasm))
    stack_bytes = _stack_pointer(dict(sections)[_GLOBAL])
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, wasm)
    if list(module.imports):
        raise GuestBuildError("the compiled module has imports")
    exports = wasmtime.Instance(store, module, []).exports(store)
    _call(store, exports["_initialize"])
    _call(store, exports["beddel_init"])
    state_address = _call(store, exports["beddel_state"])
    memory = cast(wasmtime.Memory, exports["memory"])
    image = bytearray(memory.read(store, 0, memory.data_len(store)))
    image[:stack_bytes] = bytes(stack_bytes)
    pages = len(image) // PAGE_BYTES
    return Snapshot(_rewrite(sections, bytes(image), pages), pages, state_address)


def _call(store: wasmtime.Store, function: object) -> int:
    return cast(int, cast(wasmtime.Func, function)(store))


def _rewrite(sections: list[tuple[int, bytes]], image: bytes, pages: int) -> bytes:
    segments = list(_segments(image))
    out = bytearray(b"\0asm\1\0\0\0")
    for kind, body in sections:
        if kind in (_CUSTOM, _START, _DATA_COUNT, _DATA):
            continue
        if kind == _MEMORY:
            body = b"\1\1" + _uleb(pages) + _uleb(MEMORY_MAX_BYTES // PAGE_BYTES)
        elif kind == _EXPORT:
            body = _without_exports(body, BUILD_ONLY_EXPORTS)
        elif kind == _CODE:  # the count of data segments stands before the code that may use it
            out += _section(_DATA_COUNT, _uleb(len(segments)))
        out += _section(kind, body)
    data = _uleb(len(segments))
    for offset, content in segments:
        data += b"\0\x41" + _sleb(offset) + b"\x0b" + _uleb(len(content)) + content
    return bytes(out + _section(_DATA, data))


def _segments(image: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of an image between long runs of zeros."""
    for found in re.finditer(rb"[^\0](?:\0{0,%d}[^\0])*" % (ZERO_RUN_BYTES - 1), image):
        yield found.start(), found[0]


def _sections(wasm: bytes) -> Iterator[tuple[int, bytes]]:
    position = 8
    while position < len(wasm):
        kind = wasm[position]
        size, position = _read_uleb(wasm, position + 1)
        yield kind, wasm[position : position + size]
        position += size


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _uleb(len(body)) + body


def _without_exports(body: bytes, unwanted: frozenset[str]) -> bytes:
    count, position = _read_uleb(body, 0)
    kept = []
    for _ in range(count):
        start = position
        length, position = _read_uleb(body, position)
        name = body[position : position + length].decode()
        _, position = _read_uleb(body, position + length + 1)
        if name not in unwanted:
            kept.append(body[start:position])
    return _uleb(len(kept)) + b"".join(kept)


def _stack_pointer(globals_section: bytes) -> int:
    """The first value of the stack pointer, when it is the module's one global."""
    found = re.fullmatch(
        rb"\x01\x7f\x01\x41([\x80-\xff]*[\0-\x7f])\x0b", globals_section, re.DOTALL
    )
    if not found:
        raise GuestBuildError("the compiled module has other globals than the stack pointer")
    return _read_uleb(found[1], 0)[0]


def _read_uleb(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _uleb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sleb(value: int) -> bytes:
    """A non-negative number as signed LEB128: one more byte when the top bit would be a sign."""
    out = _uleb(value)
    return out if out[-1] < 0x40 else out[:-1] + bytes([out[-1] | 0x80, 0])


def main(arguments: list[str]) -> int:
    """Build into the folder named by the one argument and print the digest."""
    if len(arguments) != 1:
        print("usage: build.py OUTDIR", file=sys.stderr)
        return 2
    try:
        facts = build(Path(arguments[0]))
    except GuestBuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{facts['wasm_sha256']}  javascript.wasm")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
