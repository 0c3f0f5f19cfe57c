"""Run the command line in this process and write down what it starts and what it writes.

`watch_audit.py FILE ARGUMENTS…`: each audit event that starts something or changes a file goes to
FILE as a line. The command's own output is no such event.
"""

from __future__ import annotations

import os
import sys

STARTS = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod")
OTHERS = ("socket.connect", "socket.bind", "pty.spawn", "_thread.start_new_thread", "os.putenv")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

if __name__ == "__main__":
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def watch(event: str, details: tuple[object, ...]) -> None:
        """Note an event of interest."""
        opened = event == "open" and isinstance(details[2], int) and details[2] & _WRITING
        if opened or event in (*STARTS, *CHANGES, *OTHERS):
            os.write(log, f"{event} {details[:1]}\n".encode("utf-8", "backslashreplace"))

    from beddel_cli.__main__ import main

    sys.addaudithook(watch)
    sys.argv = ["beddel-cli", *sys.argv[2:]]
    main()
