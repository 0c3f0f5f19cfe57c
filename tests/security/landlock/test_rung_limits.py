"""On the landlock rung too, what is asked for or set never changes which walls stand."""

from __future__ import annotations

from tests.security.landlock.conftest import Rung
from tests.support.cli import Result

NEVER_LACKING = {"guardian", "no-new-privs", "capabilities", "seccomp", "landlock", "rlimits"}


def standing(result: Result) -> set[str]:
    assert result.json["rung"] == "landlock", result.message
    return {item["name"] for item in result.json["controls"] if item["enforced"]}


def test_low_limits_and_odd_umasks_take_no_wall_away(rung: Rung) -> None:
    walls = standing(rung.exec("--json", "--", "true"))
    assert walls >= NEVER_LACKING, "the control"
    for most in (3, 4, 5, 6, 8, 12):
        assert standing(rung.exec("--json", "--open-files", str(most), "--", "true")) == walls
    for option, least in (("--processes", "1"), ("--inodes", "1"), ("--disk", "1B")):
        result = rung.exec("--json", option, least, "--", "true")
        assert result.json["outcome"]["status"] == "success", result.message
        assert standing(result) == walls
    folder = rung.caller.folder("project", file=b"content")
    for umask in (0o111, 0o377, 0o777):
        asked = ("--json", "--workspace", folder, "--", "cat", "file")
        result = rung.exec(*asked, umask=umask)
        assert (result.json["stdout"]["text"], standing(result)) == ("content", walls)
