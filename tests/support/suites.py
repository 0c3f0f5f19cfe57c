"""Public test suites that are not part of this repository, and what is published about them.

`.ci/run` declares a suite that it does not have with the value `absent`: only then does CI skip.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.capabilities import give_up

WRITE = "BEDDEL_WRITE_SUITE_RESULTS"


def suite_folder(variable: str, source: str) -> Path:
    """Give the folder of a suite, or end the test loudly where there is none."""
    value = os.environ.get(variable)
    if value == "absent":
        pytest.skip(f"declared absent: {variable} (git clone {source})")
    if not value:
        give_up(f"{variable} names no checkout of {source}")
    folder = Path(value)
    assert folder.is_dir(), f"{variable}: no folder {folder}"
    return folder


def digest(files: list[Path], root: Path) -> str:
    """Give one digest over the names and bytes of files."""
    total = hashlib.sha256()
    for file in files:
        name = file.relative_to(root).as_posix()
        total.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def table(head: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Give the published text: a head, totals of the second column, one line for each case."""
    totals = Counter(row[1] for row in rows)
    lines = [head, "| answer | cases |", "| --- | --- |"]
    lines += [f"| {answer} | {count} |" for answer, count in sorted(totals.items())]
    lines += [f"| all | {len(rows)} |", ""]
    lines += [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def check_published(file: Path, text: str) -> None:
    """Hold what was found against what is published; with BEDDEL_WRITE_SUITE_RESULTS, publish."""
    if os.environ.get(WRITE):
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, f"{WRITE}=1 publishes the new answers"
