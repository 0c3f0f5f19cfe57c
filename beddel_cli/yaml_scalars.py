"""Which value a plain YAML scalar stands for: the core schema of YAML 1.2, and what JSON can carry.

`no` and `12:30` are text. What other readers disagree about, such as `012`, is an error, and so is
a number that JSON has no way to write.

Source: YAML 1.2.2, chapter 10.3.2.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Scalar = None | bool | int | float | str

MAX_NUMBER_DIGITS = 400

_NUMBER_STARTS = frozenset("-+.0123456789")
_DIGITS = b"0123456789"
_HEX_DIGITS = _DIGITS + b"abcdefABCDEF"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = frozenset(
    (
        *(".nan", ".NaN", ".NAN"),
        *(sign + word for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")),
    )
)


class ScalarError(ValueError):
    """A plain scalar that stands for no value here."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def plain_value(text: str) -> Scalar:
    """Give the value that a plain scalar without a tag stands for.

    Raises:
        ScalarError: a number that is ambiguous, absurdly long, or not in JSON; or a lone `-`,
            which YAML does not allow and libyaml does.
    """
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in _NUMBER_STARTS else text


def _number(text: str) -> int | float | str:
    if text == "-":
        raise ScalarError("an item that is only -", 'write "-" for text')
    digits = text[1:] if text[0] in "-+" else text
    if _has_only(digits, _DIGITS):
        _check_digits(text)
        if len(digits) > 1 and digits[0] == "0":
            raise _leading_zeros(text)
        return int(text) if digits else text
    if digits[0] == "0" and _has_only(digits, _DIGITS + b"_"):
        _check_digits(text)
        raise _leading_zeros(text)
    for prefix, characters, base in (("0o", b"01234567", 8), ("0x", _HEX_DIGITS, 16)):
        if text.startswith(prefix) and len(text) > 2 and _has_only(text[2:], characters):
            _check_digits(text)
            return int(text[2:], base)
    if text in _NOT_FINITE:
        raise ScalarError(f"JSON has no such number: {text}")
    if not _is_float(digits):
        return text
    _check_digits(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ScalarError(f"a number outside the range of JSON: {text}")
    return value


def _is_float(digits: str) -> bool:
    """Tell whether this, its sign taken off, is a number with a fraction or an exponent."""
    mantissa, has_exponent, exponent = digits.replace("E", "e").partition("e")
    if has_exponent:
        exponent = exponent[1:] if exponent.startswith(("+", "-")) else exponent
        if not exponent or not _has_only(exponent, _DIGITS):
            return False
    whole, _, fraction = mantissa.partition(".")
    return bool(whole or fraction) and _has_only(whole, _DIGITS) and _has_only(fraction, _DIGITS)


def _has_only(text: str, characters: bytes) -> bool:
    # The way that tells a text of a mebibyte from a number in a millisecond.
    return text.isascii() and not text.encode("ascii").translate(None, characters)


def _check_digits(text: str) -> None:
    if len(text) > MAX_NUMBER_DIGITS:
        raise ScalarError(f"a number of more than {MAX_NUMBER_DIGITS} digits")


def _leading_zeros(text: str) -> ScalarError:
    hint = f'write "{text}" for text, 0o… for octal'
    return ScalarError(f"a number with leading zeros: {text}", hint)
