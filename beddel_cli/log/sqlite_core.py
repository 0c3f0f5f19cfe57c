"""Python's own binding of SQLite, without what the package around it brings along.

`sqlite3` imports `datetime` and registers converters; the C module underneath, `_sqlite3`, asks for
`functools.lru_cache` to keep prepared statements, and `functools` imports `collections`: 4 ms in
all, of a command that otherwise needs neither. The one function it wants is made of the same C type
that `functools` makes it of. Where that does not work, the import is the ordinary one.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from sqlite3 import Error, OperationalError, connect

    __all__ = ["Error", "OperationalError", "connect"]
else:

    def _lru_cache(most: int) -> Callable[[object], object]:
        from _functools import _lru_cache_wrapper

        return lambda function: _lru_cache_wrapper(function, most, False, tuple)

    def _import_without_functools() -> None:
        only = type(sys)("functools")
        only.lru_cache = _lru_cache
        sys.modules["functools"] = only
        try:
            import _sqlite3  # noqa: F401
        except (ImportError, AttributeError):
            sys.modules.pop("_sqlite3", None)
        finally:
            del sys.modules["functools"]

    if "functools" not in sys.modules and "_sqlite3" not in sys.modules:
        _import_without_functools()
    from _sqlite3 import Error, OperationalError, connect
