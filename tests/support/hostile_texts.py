"""Files that mean to exhaust whoever reads them: YAML up to its cap, JSON up to its own.

Each is a name, the bytes, and how the error begins; None where the file is read, being harmless.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from beddel_cli.json_strict import MAX_DEPTH as JSON_DEPTH
from beddel_cli.json_strict import MAX_VALUES as JSON_VALUES
from beddel_cli.yaml_safe import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_DIRECTIVES, MAX_VALUES

JSON_BYTES = 16 << 20
Case = tuple[str, bytes, str | None]


def fill(unit: str, before: str = "", after: str = "", size: int = MAX_BYTES) -> bytes:
    """Repeat a unit between two texts as often as the cap lets it."""
    ends = len((before + after).encode())
    return (before + unit * ((size - ends) // len(unit.encode())) + after).encode()


def numbered(form: str, before: str = "", after: str = "") -> bytes:
    """Repeat a form with 0, 1, 2 … in place of N."""
    parts, size = [before], len(before + after)
    for number in itertools.count():
        part = form.replace("N", str(number))
        size += len(part)
        if size > MAX_BYTES:
            return ("".join(parts) + after).encode()
        parts.append(part)
    raise AssertionError


def laughs(form: str, first: str, levels: int = 9, times: int = 6) -> bytes:
    """Write a billion laughs: each level repeats the one before it."""
    lines = [f"l0: &l0 {first}"]
    for n in range(1, levels + 1):
        lines.append(f"l{n}: &l{n} " + form.replace("ALIASES", ", ".join([f"*l{n - 1}"] * times)))
    return "\n".join(lines).encode()


def block_laughs() -> bytes:
    levels = "".join(f"- &l{n}\n" + f"  - *l{n - 1}\n" * 6 for n in range(1, 10))
    return f"- &l0 [x]\n{levels}".encode()


def yaml_cases() -> Iterator[Case]:
    """Give every attack on the reading of a job."""
    yield from _laughs()
    yield from _nesting()
    yield from _counts()
    yield from _scalars()
    yield from _numbers()
    yield from _characters()
    yield from _syntax()


def _laughs() -> Iterator[Case]:
    values = f"more than {MAX_VALUES} values"
    yield "laughs, flow lists", laughs("[ALIASES]", "[x]"), f"f:6:10: {values}"
    yield "laughs, block lists", block_laughs(), f"f:31:5: {values}"
    yield "laughs, flow maps", laughs("{a: [ALIASES]}", "[x]"), f"f:6:14: {values}"
    yield "laughs, merge key", laughs("{<<: [ALIASES]}", "{x: 1}"), "f:2:10: merge keys (<<) are"
    yield "laughs, merge line", b"a: &a {x: 1}\nb:\n  <<: *a\n", "f:3:3: merge keys (<<) are not"
    yield "laughs, merge ?", b"a: &a {x: 1}\nb:\n  ? <<\n  : *a\n", "f:3:5: merge keys (<<) are not"
    yield "laughs, merge tag", b"a: &a {x: 1}\nb: {!!merge '<<': *a}", "f:2:5: tags are not allowed"
    many = f"more than {MAX_ALIASES} aliases"
    yield "alias storm", fill("*a,", "[&a 1,", "]"), f"f:1:199: {many}"
    yield "alias storm, block", fill("- *a\n", "- &a 1\n"), f"f:66:3: {many}"
    long = f"more than {MAX_BYTES} characters repeated by aliases"
    for style, text in (
        ("plain", "x" * 600_000),
        ("single", f"'{'x' * 600_000}'"),
        ("double", f'"{"x" * 600_000}"'),
        ("literal", f"|\n  {'x' * 600_000}"),
        ("folded", f">\n  {'x' * 600_000}"),
    ):
        data = f"- &a {text}\n- *a\n- *a\n"
        yield f"long {style} text again", data.encode(), f"f:{data.count(chr(10))}:3: {long}"
    yield "long keys again", f"- &a {{{'k' * 900}: 1}}\n".encode() + b"- *a\n" * 64, None
    yield "a list again", b"- &a [" + b"1," * 2_498 + b"]\n- *a\n", None
    yield "a list again, over", b"- &a [" + b"1," * 2_499 + b"]\n- *a\n", f"f:2:3: {values}"
    yield "recursive list", b"&a [*a]", "f:1:5: alias 'a' stands inside what it names"
    yield "recursive map", b"&a {b: {c: *a}}", "f:1:12: alias 'a' stands inside what it names"
    yield "recursive block", b"a: &a\n  - b\n  - *a\n", "f:3:5: alias 'a' stands inside what it"
    yield "recursive pair", b"- &a [*b]\n- &b [*a]\n", "f:1:7: alias 'b' names nothing before it"
    yield "alias of nothing", fill("a", "*"), "f:1:1: alias 'aaaaaaaa"


def _nesting() -> Iterator[Case]:
    deep = f"nested deeper than {MAX_DEPTH}"
    yield "flow lists", fill("["), f"f:1:33: {deep}"
    yield "flow lists, closed", b"[" * (1 << 19) + b"]" * (1 << 19), f"f:1:33: {deep}"
    yield "flow lists, at the limit", b"[" * 32 + b"]" * 32, None
    yield "flow lists, one more", b"[" * 33 + b"]" * 33, f"f:1:33: {deep}"
    yield "flow maps", fill("{a: "), f"f:1:129: {deep}"
    yield "flow maps as keys", fill("{"), "f:1:2: keys must be plain text"
    yield "flow mixed", fill("[{a: "), f"f:1:81: {deep}"
    yield "block lists", fill("- "), f"f:1:65: {deep}"
    yield "block lists, at the limit", b"- " * 32 + b"x", None
    block = [b" " * n + b"a:\n" for n in range(1_440)]
    yield "block maps", b"".join(block), f"f:33:33: {deep}"
    yield "block maps, at the limit", b"".join(block[:32]), None
    yield "keys in keys", fill("? "), "f:1:3: keys must be plain text"
    yield "keys in keys, lines", fill("?\n"), "f:1:2: a key is missing"
    yield "lists and keys", fill("- ? "), "f:1:5: keys must be plain text"
    yield "keys in flow", fill("? ", "[", "]"), "f:1:4: not valid YAML: did not find expected node"
    yield "lists, text inside", fill("[a"), "f:1:3: not valid YAML: did not find expected ',' or"
    yield "lists, lines inside", fill("[a\n"), "f:2:1: not valid YAML: did not find expected ','"
    yield (
        "through an alias",
        b"- &a " + b"[" * 20 + b"]" * 20 + b"\n- " + b"[" * 12 + b"*a" + (b"]" * 12),
        f"f:2:15: {deep} through an alias",
    )


def _counts() -> Iterator[Case]:
    values = f"more than {MAX_VALUES} values"
    yield "numbers", fill("1,", "[", "]"), f"f:1:10000: {values}"
    yield "numbers, at the limit", b"[" + b"1," * 4_999 + b"]", None
    yield "numbers, one more", b"[" + b"1," * 5_000 + b"]", f"f:1:10000: {values}"
    yield "fractions", fill("1.5,", "[", "]"), f"f:1:19998: {values}"
    yield "empty lists", fill("[],", "[", "]"), f"f:1:14999: {values}"
    yield "empty maps", fill("{},", "[", "]"), f"f:1:14999: {values}"
    yield "empty lists, named", numbered("&aN [],", "[", "]"), f"f:1:48882: {values}"
    yield "empty lists, deep", b"[" * 30 + b"[]," * 19_000 + b"]" * 30, f"f:1:14941: {values}"
    yield "quoted", fill('"",', "[", "]"), f"f:1:14999: {values}"
    yield "long quoted", fill('"' + "\\x41" * 24 + '",', "[", "]"), f"f:1:494903: {values}"
    yield "dashes", fill("-\n"), f"f:5000:2: {values}"
    yield "block texts", fill("- |\n x\n"), f"f:9999:3: {values}"
    yield (
        "block texts, empty lines",
        ("- |\n" + "\n" * 40).encode() * 19_000,
        f"f:204960:3: {values}",
    )
    yield "keys", numbered("kN: 1\n"), f"f:2500:8: {values}"
    yield "quoted keys in flow", numbered('"N":1,', "{", "}"), f"f:1:21390: {values}"
    yield "pairs", fill("a:1,", "[", "]"), f"f:1:19998: {values}"
    yield "maps", numbered("{kN: 1},", "[", "]"), f"f:1:17219: {values}"
    yield "anchors", numbered("- &aN 1\n"), f"f:5000:3: {values}"
    yield "anchors, one name", fill("- &a 1\n"), f"f:5000:3: {values}"
    yield "anchors on nothing", fill("&a ,", "[", "]"), f"f:1:19998: {values}"
    yield "after a megabyte", fill(" ", "#", "\n[" + "[]," * 11_000 + "]"), f"f:2:14999: {values}"
    yield "commas", fill(",", "[", "]"), "f:1:2: not valid YAML: did not find expected node content"
    yield "documents", fill("---\n"), "f:2:1: a second document; only one is read"
    yield "documents after one", fill("---\n", "a: 1\n"), "f:2:1: a second document; only one is"
    yield "document ends", fill("...\n"), "f:1:1: not valid YAML: did not find expected node"
    yield "document ends after one", fill("...\n", "a: 1\n"), None
    more = f"more than {MAX_DIRECTIVES} directives"
    yield "tag directives", numbered("%TAG !aN! b\n", "", "---\na: 1\n"), f"f:65:1: {more}"
    yield "tag directives, documents", fill("%TAG !a! b\n---\n...\n"), f"f:193:1: {more}"
    limit = "".join(f"%TAG !a{n}! {'b' * 16_000}\n" for n in range(MAX_DIRECTIVES))
    yield "tag directives, at the limit", f"{limit}---\na: 1\n".encode(), None
    yield "tag directives, one more", f"{limit}%TAG !z! b\n---\na: 1\n".encode(), f"f:65:1: {more}"
    yield (
        "long prefix, used",
        (f"%TAG !a! {'b' * 500_000}\n---\n[" + "!a!c 1," * 9_000).encode(),
        ("f:3:2: tags are not allowed: 'bbbbbbbb"),
    )
    yield "version directives", fill("%YAML 1.2\n"), "f:2:1: not valid YAML: found duplicate %YAML"
    yield "other directives", fill("%A b\n"), "f:1:3: not valid YAML: found unknown directive name"
    yield "duplicate keys", fill("a: 1\n"), "f:2:1: duplicate key 'a'"
    keys = "".join(f"k{n}: 1\n" for n in range(2_499))
    yield "duplicate key at the end", f"{keys}k0: 1\n".encode(), "f:2500:1: duplicate key 'k0'"
    yield "comments", fill("# \n", "a: 1\n"), None
    yield "comments in flow", fill("#\n", "[\n", "]"), None
    yield "one comment", fill("#"), "f: the file is empty"
    yield "spaces", fill(" "), "f: the file is empty"


def _scalars() -> Iterator[Case]:
    yield "plain", fill("x"), None
    yield "plain words", fill("x "), None
    yield "plain lines", fill(" x\n", "a:\n"), None
    yield "plain, empty lines", fill("\n", "x", "y"), None
    yield "dashes together", fill("-"), None
    yield "single", fill("x", "'", "'"), None
    yield "single quotes", fill("''", "'", "'"), None
    yield "single lines", fill("\n", "'x", "'"), None
    yield "double", fill("x", '"', '"'), None
    yield "double escapes", fill("\\x41", '"', '"'), None
    yield "double escaped lines", fill("\\\n", '"', '"'), None
    yield "double lines", fill("\n ", '"x', '"'), None
    yield "never closed", fill("x\n", '"'), "f:524288:1: not valid YAML: found unexpected end of"
    yield "literal", fill(" x\n", "|\n"), None
    yield "literal line", fill("x", "|\n "), None
    yield "literal, empty lines", fill("\n", "|\n"), None
    yield "literal, spaces", fill(" \n", "|\n"), None
    yield "literal, more and more", b"|\n" + b"".join(b" " * n + b"\n" for n in range(1_440)), None
    yield "folded", fill(" x\n", ">\n"), None
    yield "folded, empty lines", fill("\n", ">\n x\n", " y\n"), None
    yield "texts of 200 lines", ("- |\n" + "\n" * 200 + " x\n").encode() * 4_900, None
    yield "long keys", fill("k" * 1_023 + ": "), "f:1:2049: not valid YAML: mapping values are not"
    yield "long key", f"{'k' * 1_000}: 1\n".encode() * 2, "f:2:1: duplicate key 'kkkkkkk"
    yield (
        "long explicit keys",
        f"? {'k' * 520_000}\n: 1\n".encode() * 2,
        "f:3:3: duplicate key 'kkk",
    )
    yield "long anchor", fill("a", "&", " 1"), None
    yield "long tag", fill("a", "!", " x"), "f:1:1: tags are not allowed: '!aaaaaa"
    yield "long tag, escaped", fill("%41", "!<", ">"), "f:1:1: tags are not allowed: 'AAAAAA"


def _numbers() -> Iterator[Case]:
    digits = "f:1:1: a number of more than 400 digits"
    yield "digits", fill("1"), digits
    yield "digits, at the limit", b"1" * 400, None
    yield "digits, one more", b"1" * 401, digits
    yield "zeros", fill("0"), digits
    yield "negative", fill("9", "-"), digits
    yield "hex", fill("F", "0x"), digits
    yield "hex, at the limit", b"0x" + b"F" * 398, None
    yield "octal", fill("7", "0o"), digits
    yield "zeros and underscores", fill("0_"), digits
    yield "binary is text", fill("1", "0b"), None
    yield "underscores are text", fill("1_"), None
    yield "fraction", fill("1", "0."), digits
    yield "only fraction", fill("1", "."), digits
    yield "exponent", fill("9", "1e"), digits
    yield "small exponent", fill("9", "1e-"), digits
    yield "exponents are text", fill("1e"), None
    yield "signs are text", fill("+"), None
    yield "large exponent", b"1e999999999", "f:1:1: a number outside the range of JSON: 1e999999999"
    yield "many large", fill("- " + "1" * 400 + "\n"), None
    yield "many hex", fill("- 0x" + "f" * 398 + "\n"), None


def _characters() -> Iterator[Case]:
    yield "NUL", fill("\x00"), "f:1:1: character U+0000 is not allowed"
    yield "a late control", fill("a\n", "", "\x01"), "f:524288:1: character U+0001 is not allowed"
    for code in (*range(9), 11, 12, *range(14, 32), *range(127, 133), *range(134, 160)):
        said = f"f:2:2: character U+{code:04X} is not allowed"
        yield f"control {code:02X}", f"a: é\nb{chr(code)}: 1".encode(), said
    for code in (0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF):
        said = f"f:2:2: character U+{code:04X} is not allowed"
        yield f"character {code:04X}", f"a: é\nb{chr(code)}: 1".encode(), said
    yield "allowed neighbours", "a: \x85  \xa0\u2027\u202a\ufefe\ufffd\U0010ffff".encode(), None
    yield "C1 all over", fill("\x9b"), "f:1:1: character U+009B is not allowed"
    yield "UTF-8 mark", b"\xef\xbb\xbfa: 1\n", "f:1:1: character U+FEFF is not allowed"
    for encoding in ("utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le"):
        data = "a: 1\n".encode(encoding)
        wrong = "not valid UTF-8" if data[0] in (0xFF, 0xFE) else "character U+0000 is not allowed"
        column = 1 if data[0] in (0, 0xFF, 0xFE) else 2
        yield encoding, data, f"f:1:{column}: {wrong}"
    yield "UTF-16 mark, big", b"\xfe\xff\x00a", "f:1:1: not valid UTF-8"
    yield "raw surrogate", b"a: \xed\xa0\x80\n", "f:1:4: not valid UTF-8"
    yield "raw surrogate pair", b"a: \xed\xa0\xbd\xed\xb8\x80\n", "f:1:4: not valid UTF-8"
    yield "escaped surrogate", b'a: "\\uD800"\n', "f:1:7: not valid YAML: found invalid Unicode"
    yield "escaped pair", b'a: "\\uD83D\\uDE00"\n', "f:1:7: not valid YAML: found invalid Unicode"
    yield "escaped surrogates", fill("\\ud83d", '"', '"'), "f:1:4: not valid YAML: found invalid"
    yield "escaped beyond Unicode", b'"\\U00110000"', "f:1:4: not valid YAML: found invalid Unicode"
    yield "escaped NUL is text", b'"\\0\\x00\\u0000"', None
    yield "no such escape", b'a: "\\q"', "f:1:5: not valid YAML: found unknown escape character"
    yield "overlong", b"a: \xc0\xaf\n", "f:1:4: not valid UTF-8"
    yield "cut short", b"a: \xf0\x9f\x98", "f:1:4: not valid UTF-8"
    yield "late byte", fill("a\n", "", "")[:-1] + b"\xff", "f:524288:2: not valid UTF-8"
    yield "every letter", ('- "' + "".join(map(chr, range(0x10000, 0x4DFFF))) + '"').encode(), None
    yield "emoji", fill("😀"), None
    yield "one emoji at the end", fill("a", "", "😀"), None
    yield "many of two bytes", fill("é"), None
    yield "emoji in a list", fill("- 😀\n"), f"f:5000:3: more than {MAX_VALUES} values"
    yield "CRLF", fill(" x\r\n", "a:\r\n"), None
    yield "CR", fill("\r", "a: 1"), None
    yield "next line", fill("\x85", "a: 1"), None
    yield (
        "a tab before a key",
        b"a:\n\tb: 1\n",
        "f:2:1: not valid YAML: found character that cannot",
    )
    yield "tabs", fill("\t"), "f:1:1: not valid YAML: found character that cannot start any token"
    yield "tabs in flow", fill("\t", "[", "]"), None


def _syntax() -> Iterator[Case]:
    yield "colons", fill(":"), "f:1:1048576: not valid YAML: mapping values are not allowed"
    yield "colons in flow", fill(": ,", "{", "}"), "f:1:2: not valid YAML: did not find expected"
    yield "colon lines", fill(": \n"), "f:1:1: not valid YAML: did not find expected key"
    yield "anchors on anchors", fill("&a "), "f:1:4: not valid YAML: did not find expected"
    yield "quotes", fill('"x '), "f:1:5: not valid YAML: did not find expected <document start>"
    yield (
        "dedents",
        "".join(
            f"k{n}:\n" + "".join(" " * (m + 1) + "a:\n" for m in range(30)) for n in range(300)
        ).encode(),
        f"f:2501:21: more than {MAX_VALUES} values",
    )
    yield "too large", b" " * (MAX_BYTES + 1), f"f: larger than {MAX_BYTES} bytes"


def _json(unit: str, before: str = "", after: str = "") -> bytes:
    return fill(unit, before, after, JSON_BYTES)


def json_cases() -> Iterator[Case]:
    """Give every attack on the reading of an input."""
    deep, values = f"nested deeper than {JSON_DEPTH}", f"more than {JSON_VALUES} values"
    digits = "a number of more than 400 digits"
    yield "lists", _json("["), f"f:1:257: {deep}"
    yield "lists, closed", b"[" * (JSON_BYTES // 2) + b"]" * (JSON_BYTES // 2), f"f:1:257: {deep}"
    yield "maps", _json('{"a":'), f"f:1:1281: {deep}"
    tower = "[" * 255 + "]" * 255
    yield "towers at the limit", _json(f"{tower},", "[", "[]]"), f"f:1:1996030: {values}"
    yield "a tower beyond", _json(f"[{tower}],", "[", "[]]"), f"f:1:257: {deep}"
    yield "empty lists", _json("[],", "[", "[]]"), f"f:1:1499999: {values}"
    yield "empty maps", _json("{},", "[", "{}]"), f"f:1:1499999: {values}"
    yield "numbers", _json("1,", "[", "1]"), f"f:1:1999999: {values}"
    yield "texts", _json('"",', "[", '""]'), f"f:1:2999998: {values}"
    yield "texts with brackets", _json('"[[]{\\"",', "[", '""]'), f"f:1:8999992: {values}"
    yield "NaN at the end", _json("1,", "[", "NaN]"), f"f:1:1999999: {values}"
    yield "duplicate keys", _json('"a":1,', "{", '"a":1}'), f"f:1:2999999: {values}"
    yield (
        "duplicate long keys",
        b'{"%b":1,"%b":2}' % (b"k" * (1 << 22), b"k" * (1 << 22)),
        ("f:1:4194311: duplicate key 'kkkk"),
    )
    yield "digits", _json("1"), f"f:1:1: {digits}"
    yield "many long numbers", _json("1" * 4_300 + ",", "[", "1]"), f"f:1:2: {digits}"
    yield "fraction", _json("1", "0."), f"f:1:1: {digits}"
    yield "exponent", _json("1", "1e"), f"f:1:1: {digits}"
    yield "small exponent", _json("1", "1e-"), f"f:1:1: {digits}"
    yield "never closed", _json("x", '"'), "f:1:1: not valid JSON: unterminated string starting at"
    yield "backslashes", _json("\\", '"'), "f:1:1: not valid JSON: unterminated string starting at"
    yield "quotes", _json('"'), "f:1:3: not valid JSON: extra data"
    yield "commas", _json(",", "["), f"f:1:1000000: {values}"
    yield "colons", _json(":", "{"), f"f:1:1000000: {values}"
    yield "spaces", _json(" "), "f:1:16777217: not valid JSON: expecting value"
    yield "lines", _json("\n"), "f:16777217:1: not valid JSON: expecting value"
    yield "NUL", _json("\0"), "f:1:1: not valid JSON: expecting value"
    yield "a late byte", _json("x", '"')[:-1] + b"\xff", "f:1:16777216: not valid UTF-8"
    yield "text", _json("x", '"', '"'), None
    yield "escaped surrogates", _json("\\ud800", '"', '"'), None
