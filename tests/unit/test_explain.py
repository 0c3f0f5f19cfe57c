"""Where each value of a plan comes from, and every reason against a plan."""

from __future__ import annotations

import hashlib
import json

import pytest

from beddel_cli.explain import Explanation, Question, SourceLine, Value, explain
from beddel_cli.host import Host
from beddel_cli.job import parse_job
from beddel_cli.limits import Limits
from beddel_cli.plan import Wishes, make_plan, refusals
from beddel_cli.profile import PROTECTIONS, Profile, parse_profile
from beddel_cli.profile_comparison import Beyond
from beddel_cli.record import changed
from beddel_cli.render_explain import (
    exit_code,
    explanation_json,
    explanation_json_of_error,
    explanation_text,
)
from tests.support.values import MIB, host, place, refusal

JOB_TEXT = """\
beddel: 1
id: one
runtime: javascript
code: return input
input: {a: 1}
limits:
  memory: 1MiB
  timeout: 2s
network: none
"""
PROFILE_TEXT = """\
beddel: 1
name: mine
level: high
isolate:
  limits:
    memory: 2MiB
    timeout: 5s
    fuel: 1000
    max_output: 4KiB
    max_console: 1KiB
  dynamic_code: function
  clock: real
  network: none
  required:
    - store-limits
    - no-new-privs
    - capabilities
    - seccomp
    - landlock
    - rlimits
"""
PROFILE = parse_profile(PROFILE_TEXT.encode(), "mine.yaml", built_in=False)


def answer(
    job: str = JOB_TEXT,
    flags: Limits | None = None,
    on: Host | None = None,
    profile: str = PROFILE_TEXT,
    **more: object,
) -> Explanation:
    question = Question(
        job=parse_job(job.encode(), "one.yaml"),
        profile=parse_profile(profile.encode(), "mine.yaml", built_in=False),
        flags=Wishes(flags or Limits()),
        profile_file="mine.yaml",
        profile_source=profile.encode(),
        input_from="job",
        beyond=(),
        guest_digest="ab" * 32,
    )
    return explain(changed(question, **more), on or host())


def value(found: Explanation, field: str) -> Value:
    (item,) = (each for each in found.values if each.field == field)
    return item


def test_every_value_says_who_decided_it_where_and_what_the_profile_grants() -> None:
    found = answer(flags=Limits(fuel=7))
    rows = [
        (item.field, item.value, item.origin, str(item.place), item.granted)
        for item in found.values
    ]
    assert rows == [
        ("memory", "1MiB", "job", "one.yaml:7:11", "2MiB"),
        ("timeout", "2s", "job", "one.yaml:8:12", "5s"),
        ("fuel", "7", "command line", "None", "1000"),
        ("max_output", "4KiB", "profile", "mine.yaml:9:17", "4KiB"),
        ("max_console", "1KiB", "profile", "mine.yaml:10:18", "1KiB"),
        ("dynamic_code", "function", "profile", "mine.yaml:11:17", "function"),
        ("clock", "real", "profile", "mine.yaml:12:10", "real"),
        ("random", "seeded anew, recorded", "profile", "mine.yaml:12:10", "seeded anew, recorded"),
        ("network", "none", "job", "one.yaml:9:10", "none"),
        ("files", "none", "this version", "None", "none"),
    ]
    assert str(value(found, "memory").granted_place) == "mine.yaml:6:13"
    assert value(found, "timeout").number == 2_000_000_000
    assert not any(item.refused for item in found.values)
    assert exit_code(found) == 0


def test_a_job_that_asks_for_determinism_decides_the_clock() -> None:
    found = answer(JOB_TEXT + "deterministic: true\n")
    assert (value(found, "clock").value, value(found, "clock").granted) == ("frozen", "real")
    assert str(value(found, "clock").place) == "one.yaml:10:16"
    assert value(found, "random").value == "seeded from the code"


@pytest.mark.parametrize("flags", [Limits(), Limits(memory_bytes=MIB, fuel=3)])
def test_the_plan_is_the_one_that_run_makes(flags: Limits) -> None:
    found = answer(flags=flags)
    job = parse_job(JOB_TEXT.encode(), "one.yaml")
    assert found.plan == make_plan(job, PROFILE, host(), Wishes(flags))
    digests = {item.name: item.sha256 for item in found.digests}
    assert found.plan is not None
    assert digests["plan"] == found.plan.digest
    assert digests["job"] == hashlib.sha256(JOB_TEXT.encode()).hexdigest()
    assert digests["code"] == hashlib.sha256(b"return input").hexdigest()
    assert digests["input"] == hashlib.sha256(b'{"a":1}').hexdigest()
    assert digests["profile"] == hashlib.sha256(PROFILE_TEXT.encode()).hexdigest()


def test_all_reasons_are_told_and_run_raises_the_first() -> None:
    greedy = JOB_TEXT.replace("1MiB", "3MiB").replace("2s", "6s")
    flags = Limits(fuel=2000, output_bytes=1 << 20)
    on = host("landlock", "seccomp", isolate_bytes=4 * MIB)
    found = answer(greedy, flags=flags, on=on)
    assert [(item.reason, item.needs) for item in found.refusals] == [
        ("limits", "memory 3MiB"),
        ("limits", "timeout 6s"),
        ("limits", "fuel 2000"),
        ("limits", "max_output 1MiB"),
        ("protection", "seccomp"),
        ("protection", "landlock"),
        ("limits", "memory 4MiB"),
    ]
    assert [str(item.place) for item in found.refusals[:3]] == [
        "one.yaml:7:11",
        "one.yaml:8:12",
        "None",
    ]
    assert found.plan is None
    assert {item.name: item.sha256 for item in found.digests}["plan"] is None
    job = parse_job(greedy.encode(), "one.yaml")
    (first, *_) = refusals(job, PROFILE, on, Wishes(flags))
    with pytest.raises(type(first), match="the job asks for more memory than mine grants: 3MiB"):
        make_plan(job, PROFILE, on, Wishes(flags))
    assert exit_code(found) == 1


def test_a_value_that_is_refused_shows_what_was_asked_for() -> None:
    greedy = JOB_TEXT.replace("1MiB", "3MiB")
    by_job = value(answer(greedy, flags=Limits(memory_bytes=MIB)), "memory")
    assert (by_job.value, by_job.origin, by_job.refused) == ("3MiB", "job", True)
    by_flag = value(answer(flags=Limits(memory_bytes=4 * MIB)), "memory")
    assert (by_flag.value, by_flag.origin, by_flag.refused) == ("4MiB", "command line", True)
    no_room = value(answer(on=host(isolate_bytes=MIB + 1)), "memory")
    assert (no_room.value, no_room.origin, no_room.refused) == ("1MiB", "job", True)
    room = value(answer(on=host(isolate_bytes=MIB)), "memory")
    assert not room.refused


def test_each_wall_is_required_or_not_and_there_or_not() -> None:
    loose = PROFILE_TEXT.replace("    - landlock\n", "")
    found = answer(on=host("landlock"), profile=loose)
    walls = {item.name: item for item in found.walls}
    assert tuple(walls) == PROTECTIONS
    landlock, seccomp = walls["landlock"], walls["seccomp"]
    assert (landlock.required, landlock.required_place) == (False, None)
    assert (landlock.available, landlock.how) == (False, "EPERM: not permitted")
    assert (landlock.verified, landlock.fix) == (None, "allow it")
    assert (seccomp.required, str(seccomp.required_place)) == (True, "mine.yaml:18:7")
    assert (seccomp.available, seccomp.how) == (True, "a mechanism")
    assert (seccomp.verified, seccomp.fix) == ("a look from outside", None)
    assert found.refusals == ()


def test_a_wall_nobody_looked_at_is_not_there() -> None:
    found = answer(on=changed(host(), findings=()))
    assert {(item.available, item.how) for item in found.walls} == {(False, "it was not looked at")}
    assert len(found.refusals) == len(PROTECTIONS)


def test_the_lines_that_decide_are_shown() -> None:
    found = answer()
    ours = [
        (str(line.place), line.text, line.decides)
        for line in found.lines
        if line.place.file == "one.yaml"
    ]
    assert (
        ours
        == [
            ("one.yaml:3:1", "runtime: javascript", ("runtime",)),
            ("one.yaml:4:1", "code: return input", ("code",)),
            ("one.yaml:5:1", "input: {a: 1}", ("input",)),
            ("one.yaml:7:11", "memory: 1MiB", ("memory",)),
            ("one.yaml:8:12", "timeout: 2s", ("timeout",)),
            ("one.yaml:9:10", "network: none", ("network",)),
        ]
        or ours == []
    )
    assert SourceLine(place(12, 10, "mine.yaml"), "clock: real", ("clock", "random")) in found.lines


def test_a_line_that_was_overruled_decides_nothing() -> None:
    found = answer(flags=Limits(memory_bytes=700_000), input_from="--set")
    shown = [line.decides for line in found.lines if line.place.file == "one.yaml"]
    assert shown == [("runtime",), ("code",), ("timeout",), ("network",)]


def test_a_long_line_is_cut_around_what_decides() -> None:
    job = {"beddel": 1, "id": "one", "runtime": "javascript", "code": "x" * 500}
    text = json.dumps({**job, "limits": {"memory": "1MiB"}})
    (line,) = (x for x in answer(text).lines if x.place.file == "one.yaml")
    assert set(line.decides) == {"runtime", "code", "memory"}
    assert len(line.text) <= 102
    assert '"runtime": "javascript"' in line.text
    assert line.text.endswith("…")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_as_the_parser_counts_them(end: str) -> None:
    found = answer(JOB_TEXT.replace("\n", end))
    texts = [line.text for line in found.lines if line.decides == ("timeout",)]
    assert texts == ["timeout: 2s"]


def test_the_text_has_every_answer_and_says_that_nothing_was_tried() -> None:
    text = explanation_text(answer(flags=Limits(fuel=2000), on=host("landlock")))
    assert text.startswith("would be refused  one  under mine (your own file)\n")
    for words in (
        "  reason   the command line asks for more fuel than mine grants: 2000, at most 1000\n",
        "  reason   mine requires landlock, which this machine does not enforce\n",
        "    found  EPERM: not permitted\n",
        "2000 REFUSED",
        "MISSING: EPERM: not permitted",
        "offered: a mechanism",
        "one.yaml:8:12  timeout: 2s",
        "none: nothing would run",
        "nothing was tried or started",
    ):
        assert words in text, words


def test_the_warnings_of_a_loose_profile_are_shown() -> None:
    found = answer(beyond=(Beyond("limits.memory", "64MiB", "8MiB"),))
    assert "looser than any built-in one: memory 64MiB (at most 8MiB)" in explanation_text(found)
    document = explanation_json(found)
    assert document["profile"]["looser_than_built_in"] == ["limits.memory"]
    assert len(document["warnings"]) == 2


def keys(item: object) -> object:
    """Give the keys of a document, without its values."""
    if isinstance(item, dict):
        return {key: keys(inner) for key, inner in item.items()}
    return [keys(inner) for inner in item[:1]] if isinstance(item, list) else None


def test_the_document_has_always_the_same_keys() -> None:
    good = explanation_json(answer())
    bad = explanation_json(answer(flags=Limits(fuel=2000), on=host("landlock")))
    error = explanation_json_of_error(refusal())
    assert tuple(good) == tuple(bad)
    assert set(good) == set(error)
    assert keys({**good, "refusals": []}) == keys({**bad, "refusals": []})
    assert (good["would_run"], bad["would_run"], error["would_run"]) == (True, False, None)
    assert (good["exit_code"], bad["exit_code"], error["exit_code"]) == (0, 1, 2)
    assert good["schema"] == error["schema"] == "beddel-cli/explain/v1"
    assert set(bad["refusals"][0]) == {"reason", "message", "place", "needs", "found", "fix"}
    assert json.loads(json.dumps(good)) == good


def test_nothing_of_a_job_or_profile_acts_on_a_terminal() -> None:
    hostile = JOB_TEXT.replace("return input", '"\u202e ##[error]"')
    job = parse_job(hostile.encode(), "o\x1b[31m\n.yaml")
    found = answer(job=hostile, input_from="--input \x1b[1m")
    question = changed(found.question, job=job, profile=changed(PROFILE, name="\x1b[2m"))
    greedy = changed(question, flags=Wishes(Limits(fuel=2000)))
    for text in (explanation_text(explain(each, host())) for each in (question, greedy)):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "##[" not in text
        assert "o\\x1b[31m\\n.yaml:3:1" in text, "the control: it is shown, as escapes"
        assert "\\u202e" in text


def test_a_profile_that_is_built_in_is_named_by_its_file_alone() -> None:
    profile: Profile = changed(PROFILE, name="ultra-secure", built_in=True)
    found = answer()
    question = changed(found.question, profile=profile, profile_file="/deep/in/mine.yaml")
    text = explanation_text(explain(question, host()))
    assert "/deep/in" not in text
    assert "mine.yaml:12:10" in text
