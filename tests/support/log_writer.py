"""A process that adds to a log: `log_writer.py HOME NAME COUNT`.

Prints the index of each entry once it is acknowledged; exits 3 when an append fails.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from beddel_cli.errors import BeddelError
from beddel_cli.log.ledger import open_ledger
from beddel_cli.trust.keys import load_log_key

AT = "2026-01-02T03:04:05.000Z"


def main(home: str, name: str, count: int, out: int = 1) -> int:
    try:
        key = load_log_key(home)
        with open_ledger(home, "default") as ledger:
            for number in range(count):
                entry = f'{{"at":"{AT}","entry":"beddel-log/v1","event":"{name}.{number}"}}'
                index = ledger.append(entry.encode(), key).index
                os.write(out, b"%d\n" % index)
    except BeddelError as error:
        print(error.message, file=sys.stderr)
        return 3
    return 0


def fork(home: Path, name: str, out: Path) -> int:
    """Start a writer without end, which needs no start of Python; give its process id."""
    child = os.fork()
    if child == 0:
        try:
            main(str(home), name, 1 << 30, os.open(out, os.O_WRONLY | os.O_CREAT, 0o600))
        finally:
            os._exit(1)
    return child


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
