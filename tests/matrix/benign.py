"""Programs that do nothing wrong and have to work.

Each runs in the workspace of a sandbox, one after the other in the same run, and is right when it
ends with the exit code and, where the output is told, the output that it has outside. `strict` are
those that also fit into what ultra-secure allows: 64 MiB, 16 processes, a quarter of a processor.
"""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class Program:
    """A program, and how it has to end.

    Attributes:
        name: of it.
        what: what it shows to work.
        arguments: its command line.
        output: its standard output, exactly.
        code: its exit code.
        strict: it has to work under ultra-secure too.
    """

    name: str
    what: str
    arguments: tuple[str, ...]
    output: bytes = b""
    code: int = 0
    strict: bool = True


def _python(name: str, what: str, code: str, output: str = "ok\n", **more: bool) -> Program:
    return Program(name, what, (PYTHON, "-c", code), output.encode(), **more)


def _shell(name: str, what: str, code: str, output: str = "ok\n", **more: bool) -> Program:
    return Program(name, what, ("/bin/sh", "-ec", code), output.encode(), **more)


_SERVER = """
import http.server, threading, urllib.request
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(f"http://localhost:{server.server_port}/").read()
print("ok")
"""
_SQLITE = """
import sqlite3
one = sqlite3.connect("a.db"); two = sqlite3.connect("a.db")
assert one.execute("pragma journal_mode=wal").fetchone() == ("wal",)
one.execute("create table t(x)"); one.execute("insert into t values(1)"); one.commit()
assert two.execute("select x from t").fetchall() == [(1,)]
print("ok")
"""
_POOL = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    print("ok")
"""
_SHARED = """
import multiprocessing, os, sys
from multiprocessing import shared_memory
made = shared_memory.SharedMemory(create=True, size=4096)
made.buf[:2] = b"ok"
found = shared_memory.SharedMemory(made.name)
print(bytes(found.buf[:2]).decode())
found.close(); made.close(); made.unlink()
"""
_QUEUE = """
import multiprocessing
def work(q): q.put("ok")
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    q = context.SimpleQueue(); p = context.Process(target=work, args=(q,)); p.start()
    print(q.get()); p.join()
"""
_ASYNC = """
import asyncio, sys
async def serve(reader, writer):
    writer.write(await reader.readline()); await writer.drain(); writer.close()
async def main():
    server = await asyncio.start_unix_server(serve, "s")
    reader, writer = await asyncio.open_unix_connection("s")
    writer.write(b"ok\\n"); print((await reader.read()).decode(), end="")
    child = await asyncio.create_subprocess_exec("/bin/true")
    assert await child.wait() == 0
    server.close()
asyncio.run(main())
"""
_THREADS = """
import threading, queue
q = queue.Queue()
threads = [threading.Thread(target=q.put, args=(n,)) for n in range(12)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(q.queue) == list(range(12)); print("ok")
"""
_SIGNALS = """
import os, signal, time
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append("usr1"))
signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
os.kill(os.getpid(), signal.SIGUSR1); signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.2)
child = os.fork()
if child == 0: time.sleep(20)
os.kill(child, signal.SIGTERM); assert os.waitpid(child, 0)[1] == signal.SIGTERM
assert seen == ["usr1", "alarm"]; print("ok")
"""
_TEMPORARY = """
import tempfile, os, pathlib
with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
    file.write(b"x"); pathlib.Path(folder, "a").write_text("b")
    fd, name = tempfile.mkstemp(); os.close(fd); os.unlink(name)
print("ok")
"""
_MMAP = """
import mmap
with open("m", "w+b") as file:
    file.truncate(8192)
    with mmap.mmap(file.fileno(), 8192) as page: page[4096:4098] = b"ok"; page.flush()
print(open("m", "rb").read()[4096:4098].decode())
"""
_LOCKS = """
import fcntl
with open("lock", "w") as one, open("lock", "w") as two:
    fcntl.flock(one, fcntl.LOCK_EX)
    try: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError: print("ok")
"""
_PTY = """
import os, pty
pid, master = pty.fork()
if pid == 0: os.execv("/bin/echo", ["echo", "ok"])
print(os.read(master, 100).decode().strip()); os.waitpid(pid, 0)
"""
_C = """
#include <stdio.h>
#include <pthread.h>
static void *say(void *x) { puts(x); return x; }
int main(void) { pthread_t t; pthread_create(&t, 0, say, "ok"); return pthread_join(t, 0); }
"""
_CPLUSPLUS = """
#include <iostream>
#include <stdexcept>
int main() { try { throw std::runtime_error("ok"); } catch (std::exception &e) {
  std::cout << e.what() << std::endl; } }
"""
_NODE = "const w=require('child_process').execSync('echo ok');process.stdout.write(w)"
_WORKER = """
const {Worker,isMainThread,parentPort}=require('worker_threads');
if(isMainThread){new Worker(process.argv[1],{eval:false}).on('message',m=>console.log(m))}
else parentPort.postMessage('ok')
"""
_GIT = """
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q repo; cd repo; echo x > a; git add a; git commit -qm one; git log --format=%s
"""
_BINARY = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 40)"

PROGRAMS = (
    _shell("pipes", "a pipe of four programs", "seq 5 | sort -r | head -2 | tr '\\n' ' '", "5 4 "),
    _shell("many", "twenty programs at once",
           "for i in $(seq 20); do sleep 0.2 & done; wait; echo ok", strict=False),
    _shell("in_turn", "forty programs one after the other",
           "for i in $(seq 40); do /bin/true; done; echo ok"),
    _shell("here_document", "a here document and a subshell", "(cat) <<E\nok\nE"),
    _shell("tools", "find, grep, sed, awk, xargs",
           "mkdir -p t; echo 'a b' > t/x; find t -type f | xargs grep -h a | sed s/a/o/ "
           "| awk '{print $1 \"k\"}'"),
    _shell("archive", "tar and gzip there and back",
           "mkdir -p u; echo ok > u/a; tar czf u.tgz u; rm -r u; tar xzf u.tgz; cat u/a"),
    _shell("linked", "symbolic and hard links, a rename, modes",
           "echo ok > l; ln -s l m; ln l n; mv n o; chmod 600 o; cat m > p; cat o"),
    _shell("background", "a job in the background, killed",
           "sleep 30 & kill $!; wait $! || echo ok"),
    Program("code_3", "exit code 3", ("/bin/sh", "-c", "exit 3"), code=3),
    Program("code_255", "exit code 255", ("/bin/sh", "-c", "exit 255"), code=255),
    Program("code_126", "exit code 126", ("/bin/sh", "-c", "exit 126"), code=126),
    Program("no_such_program", "a program that is not there, started by a shell",
            ("/bin/sh", "-c", "no-such-program 2>/dev/null"), code=127),
    Program("binary", "10 KiB of all bytes", (PYTHON, "-c", _BINARY), bytes(range(256)) * 40),
    _python("unicode", "text in many scripts", "print('é漢字🙂')", "é漢字🙂\n"),
    _python("threads", "twelve threads and a queue", _THREADS),
    _python("temporary", "temporary files and folders", _TEMPORARY),
    _python("sqlite", "SQLite with a write-ahead log, two connections", _SQLITE),
    _python("server", "a web server on localhost and a client", _SERVER, strict=True),
    _python("pool", "a pool of processes", _POOL),
    _python("shared_memory", "shared memory between processes", _SHARED),
    _python("queue", "a queue between processes", _QUEUE),
    _python("asyncio", "asyncio: a UNIX socket and a subprocess", _ASYNC),
    _python("signals", "signals, timers and a child that is killed", _SIGNALS),
    _python("mapped", "a file mapped into memory", _MMAP),
    _python("locks", "file locks", _LOCKS),
    _python("terminal", "a terminal of its own for a child", _PTY),
    _python("hashes", "hashes and random numbers",
            "import hashlib,secrets,ssl; hashlib.sha256(secrets.token_bytes(9)); "
            "ssl.create_default_context(); print('ok')"),
    _python("user", "its own name and folder",
            "import pwd,os,getpass; assert os.access(os.environ['HOME'], os.W_OK); "
            "print('ok' if pwd.getpwuid(os.getuid()).pw_name else '')"),
    _python("time", "clocks and time zones",
            "import time,zoneinfo,datetime; datetime.datetime.now(zoneinfo.ZoneInfo('Asia/Tokyo'));"
            "time.sleep(0.01); print('ok')"),
    _python("numbers", "names of hosts and services",
            "import socket; socket.getaddrinfo('localhost', 80); print('ok')"),
    _shell("venv", "a virtual environment (without pip)",
           f"{PYTHON} -m venv --without-pip v; v/bin/python -c 'print(\"ok\")'"),
    _shell("c", "C with threads: compile and run",
           f"cat > a.c <<'E'\n{_C}\nE\ngcc -pthread a.c -o a; ./a"),
    _shell("make", "make, with two jobs at once",
           "printf 'all: a b\\na b:\\n\\t@true\\n' > Makefile; make -s -j2; echo ok"),
    _shell("perl", "Perl", "perl -MPOSIX -e 'print floor(2.5) == 2 ? \"ok\\n\" : \"\"'"),
    _shell("node", "node, which starts a program", f'node -e "{_NODE}"', strict=False),
    _shell("node_threads", "node with a worker thread",
           f"cat > w.js <<'E'\n{_WORKER.strip()}\nE\nnode w.js", strict=False),
    _shell("git", "git: init, add, commit, log", _GIT, "one\n"),
)  # fmt: skip
SLOW = (
    _shell("venv_with_pip", "a virtual environment with pip",
           f"{PYTHON} -m venv v2; v2/bin/pip --version > /dev/null; echo ok", strict=False),
    _shell("cplusplus", "C++ with exceptions: compile and run",
           f"cat > b.cc <<'E'\n{_CPLUSPLUS}\nE\ng++ b.cc -o b; ./b", strict=False),
)  # fmt: skip

# Runs inside: each program in turn, and what came of it. Reads the programs as JSON.
DRIVER = """
import base64, json, subprocess, sys
for name, arguments in json.loads(sys.stdin.readline()):
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        found = [done.returncode, base64.b64encode(done.stdout[:20000]).decode(),
                 done.stderr[-300:].decode("utf-8", "replace")]
    except (OSError, subprocess.TimeoutExpired) as error:
        found = [-999, "", str(error)]
    print(json.dumps([name, *found]), flush=True)
"""
COMMAND = (PYTHON, "-I", "-S", "-c", DRIVER)
