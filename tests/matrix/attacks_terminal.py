"""Attacks on the terminal that the caller sits at, and a program's streams lead to.

Probes run inside, with `inside_kit` before them; `w["name"]` is a probe's own name, `w["mark"]`
what it leaves to be known by.
"""

from __future__ import annotations

import fcntl
import os
import termios

from tests.matrix.attack import terminal
from tests.matrix.inside_kit import BROKE, Facts, HeldError, or_raise, terminals_to_try


@terminal("typed")
def type_for_the_caller(w: Facts) -> str:
    """Type a command into the caller's terminal, for his shell to run."""
    refused = 0
    for descriptor in terminals_to_try():
        try:
            for letter in w["token"].encode():
                fcntl.ioctl(descriptor, 0x5412, bytes([letter]))
            return BROKE
        except OSError as error:
            refused = error.errno or 0
    return or_raise(refused or 25)


@terminal("shown")
def command_the_terminal(w: Facts) -> str:
    """Send the terminal a command, such as to change its title or the clipboard."""
    os.write(1, b"\x1b]0;" + w["token"].encode() + b"\x07")
    return BROKE


@terminal("settings")
def hide_what_is_typed(w: Facts) -> str:
    """Leave the terminal so that nothing typed shows."""
    for descriptor in terminals_to_try():
        try:
            settings = termios.tcgetattr(descriptor)
        except termios.error:
            continue
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        return BROKE
    raise HeldError("no terminal is to be had")


@terminal("size")
def change_its_size(w: Facts) -> str:
    """Change the size of the terminal under whoever else uses it."""
    refused = 0
    for descriptor in terminals_to_try():
        try:
            fcntl.ioctl(descriptor, termios.TIOCSWINSZ, b"\x07\0\x07\0\0\0\0\0")
            return BROKE
        except OSError as error:
            refused = error.errno or 0
    return or_raise(refused or 25)
