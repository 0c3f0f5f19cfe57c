"""The guest built again, in another place, is the installed one to the byte."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from beddel_cli.guests import WASM_FILE
from beddel_cli.guests.javascript import build
from tests.support.capabilities import require


def build_into(folder: Path, home: str) -> bytes:
    """Build as a user would, with this home folder."""
    command = [sys.executable, build.__file__, str(folder)]
    environ = os.environ | {"HOME": home}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    wasm = (folder / "javascript.wasm").read_bytes()
    assert ended.stdout.split()[0] == hashlib.sha256(wasm).hexdigest()
    return wasm


def test_the_installed_guest_is_the_one_on_record() -> None:
    """Each installation is a build of its own, in a folder that pip makes up."""
    require("x86-64")
    record = Path(build.__file__).with_name("README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(Path(WASM_FILE).read_bytes()).hexdigest()
    assert re.findall("`sha256:([0-9a-f]{64})`", record) == [digest]


@pytest.mark.slow
def test_a_build_in_another_place_gives_the_bytes_that_are_installed(tmp_path: Path) -> None:
    folder = tmp_path / "a longer place" / "b"
    again = build_into(folder, "/nonexistent")
    assert hashlib.sha256(again).digest() == hashlib.sha256(Path(WASM_FILE).read_bytes()).digest()
    for place in (tmp_path, Path(build.__file__).parent):
        assert str(place).encode() not in again
    facts = json.loads((folder / "javascript.json").read_bytes())
    assert facts["wasm_sha256"] == hashlib.sha256(again).hexdigest()
    assert len(list((folder / "licenses").iterdir())) == 1 + len(build.LIBRARY_LICENCES)


def test_a_changed_sdist_is_refused(tmp_path: Path) -> None:
    changed = tmp_path / build.SDIST_NAME
    changed.write_bytes(b"not the pinned bytes")
    with pytest.raises(build.GuestBuildError, match="expected " + build.SDIST_SHA256):
        build.fetch_sdist({"BEDDEL_QUICKJS_SDIST": str(changed)})


def test_no_index_is_one_sentence_that_names_the_way_out() -> None:
    closed = "http://127.0.0.1:1/simple"
    with pytest.raises(build.GuestBuildError) as caught:
        build.fetch_sdist({"PIP_INDEX_URL": closed, "HOME": "/nonexistent"})
    message = str(caught.value)
    assert message.startswith("cannot build the JavaScript guest: 127.0.0.1 is not reachable (")
    way_out = f"put {build.SDIST_NAME} on this machine and set BEDDEL_QUICKJS_SDIST to its path"
    assert message.endswith(way_out)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["no/such/file", "link", "folder"])
def test_only_regular_files_are_read_from_an_archive(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        plain = tarfile.TarInfo("plain")
        plain.size = 4
        tar.addfile(plain, io.BytesIO(b"text"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assert build.read_members(buffer.getvalue(), ("plain",)) == {"plain": b"text"}
    with pytest.raises(build.GuestBuildError, match=name):
        build.read_members(buffer.getvalue(), (name,))
