"""Whatever a receipt of valid form claims, it is judged or turned away, and nothing crashes."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beddel_cli import shape
from beddel_cli.errors import UnverifiableError, VerificationError
from beddel_cli.limits import Limits
from beddel_cli.plan import Wishes, make_plan
from beddel_cli.repetition import Repetition
from beddel_cli.replay import EXIT_CODES, REPRODUCED, compare
from beddel_cli.schema_document import Definitions
from tests.support.capabilities import has
from tests.support.cli import Home
from tests.support.resigned import statement_of
from tests.support.values import JOB, PROFILE, host

DEFINITIONS = Definitions()
VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 3), st.just([]), st.just({})),
    st.sampled_from((1 << 53, 1 << 70, 1.5, "", "x", "0", "9" * 20, "a" * 64, "process")),
    st.sampled_from(("javascript", "refused", "limit", "interrupted", "wall", "real", "recorded")),
    st.sampled_from(("function", "frozen", "\x1b[2J\u202e", "mount:/in", "code")),
    st.just({"name": "code", "digest": {"sha256": "a" * 64}}),
    st.just({"sha256": "a" * 64}) | st.just({"saltedSha256": "a" * 64}),
)


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Statements of an isolate, a refusal and, where there are walls, a program."""
    folder = tmp_path_factory.mktemp("replay-receipts")
    (folder / "work").mkdir()
    home = Home(folder / "home", folder / "cache", folder / "work")
    job = home.job("console.log(1)\nreturn input", input=1)
    home.run("run", job, "-q")
    home.run("run", job, "-q", "--memory", "3MiB")
    if has("user-namespaces"):
        options = ("--profile", "high-security", "--env", "A=b", "--results", "out")
        home.run("exec", "-q", *options, "--", "sh", "-c", "echo 1; echo 2 > f")
    return [statement_of(path) for path in home.receipts()]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_claim_of_valid_form_gets_a_verdict(
    receipts: list[dict[str, Any]], data: st.DataObject
) -> None:
    first = data.draw(st.sampled_from(receipts))
    statement = copy.deepcopy(first)
    for _ in range(data.draw(st.integers(1, 3))):
        holder: Any = statement["predicate"]
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = data.draw(st.sampled_from(keys))
            inner = holder[key]
            if not (isinstance(inner, dict | list) and inner) or data.draw(st.integers(0, 4)) == 0:
                break
            holder = inner
        holder[key] = copy.deepcopy(data.draw(VALUES))
    if shape.find_problems(statement, DEFINITIONS("receipt"), DEFINITIONS, {}):
        return  # turned away before
    said = statement["predicate"]
    repetition = Repetition("ab" * 32, said)
    try:
        repetition.check_repeatable()
        assert isinstance(repetition.wishes(Limits()), Wishes)
    except UnverifiableError:
        return
    with suppress(UnverifiableError):
        repetition.check_sources(JOB, refused=False)
    with suppress(UnverifiableError, VerificationError):
        repetition.check_plan(make_plan(JOB, PROFILE, host(), Wishes()), (), None)
    comparison = compare(said, first["predicate"])
    assert comparison.verdict in EXIT_CODES
    if comparison.verdict == REPRODUCED:
        assert all(row.same for row in comparison.rows if row.judged)
