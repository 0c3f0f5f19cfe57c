"""The hatchling hook that puts the JavaScript guest into the wheel.

On Linux a wheel carries the guest, its native code for this architecture and the licences, and is
tagged for the platform. An editable build leaves the same files beside the sources. Elsewhere no
guest could run, so nothing is built and the wheel stays pure.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE_FOLDER = "beddel_cli/guests/javascript"


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is the config
    """Builds the guest before the wheel, and removes the build folder after it."""

    _folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and tell hatchling which files go where; ends the build with one sentence."""
        if sys.platform != "linux":
            return
        build_data["pure_python"] = False
        build_data["tag"] = os.environ.get("BEDDEL_WHEEL_TAG", _default_tag())
        if version == "editable":
            self._build(Path(self.root, PACKAGE_FOLDER))
            return
        self._folder = Path(tempfile.mkdtemp(prefix="beddel-wheel-"))
        self._build(self._folder)
        for file in sorted(self._folder.rglob("*")):
            if file.is_file():
                inside = file.relative_to(self._folder)
                build_data["force_include"][str(file)] = f"{PACKAGE_FOLDER}/{inside}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the build folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def _build(self, folder: Path) -> None:
        guest = _load_build(Path(self.root, PACKAGE_FOLDER))
        try:
            facts = guest.build(folder)
        except guest.GuestBuildError as error:
            self.app.abort(str(error))  # exits: no traceback above the sentence
        facts["cwasm_sha256"] = _precompile(Path(self.root), folder)
        guest.write_facts(folder, facts)
        self.app.display_info(f"{facts['wasm_sha256']}  javascript.wasm")


def _default_tag() -> str:
    return f"py3-none-linux_{platform.machine()}"


def _load_build(folder: Path) -> ModuleType:
    """The build module beside this file. Not by the name `build`, which is a package elsewhere."""
    spec = importlib.util.spec_from_file_location("beddel_guest_build", folder / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} holds no build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _precompile(root: Path, folder: Path) -> str:
    """Write javascript.cwasm with the run-time's own settings; gives its SHA-256."""
    sys.path.insert(0, str(root))
    try:
        wasm = importlib.import_module("beddel_cli.isolate.wasm")
    finally:
        sys.path.remove(str(root))
    code: bytes = wasm.compile_module((folder / "javascript.wasm").read_bytes())
    (folder / "javascript.cwasm").write_bytes(code)
    return hashlib.sha256(code).hexdigest()
