"""A small process with the heavy imports done, from which processes for foreign code are forked.

It never holds data, results or a scorer, so that no child of it does. It ends, and ends its children, as soon as the
process that started it is gone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from ntbench.engine import sandbox

_SUBREAPER = 36
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of whoever sent something."""
_HERE = b"."


class Nursery:
    """The trusted end: starts children one by one."""

    def __init__(self, files: tuple[str, ...] = ()) -> None:
        """Start the process; it imports while this one goes on. In a sandbox it sees these files beside Python."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-c", f"from ntbench.engine.nursery import tend; tend({theirs.fileno()})"]
        nothing = subprocess.DEVNULL
        before = sandbox.command(files) if sandbox.confined() else []
        self.process = subprocess.Popen(
            [*before, *command],
            pass_fds=[theirs.fileno()],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
        )
        theirs.close()
        self._line = _telling(ours)
        self.pid = self.process.pid
        """The process itself, which in a sandbox is not the one that was started."""

    def fork(self, memory_mb: int) -> tuple[int, socket.socket]:
        """Return the process id of a new child and the line to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        _telling(ours)
        socket.send_fds(self._line, [memory_mb.to_bytes(8, "big")], [theirs.fileno()])
        theirs.close()
        self.pid = _sender(self._line)
        return _sender(ours), ours


def _telling(line: socket.socket) -> socket.socket:
    """Have the system tell who sends on a line, by the id that a process has here, whatever it has where it runs."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return line


def _sender(line: socket.socket) -> int:
    """Return the process that sent the next byte on a line."""
    said, told, _, _ = line.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    found = [data for level, kind, data in told if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    if not said or not found:
        raise RuntimeError("the process that starts foreign code has ended")
    return int(_CREDENTIALS.unpack(found[0])[0])


@cache
def nursery(process: int, files: tuple[str, ...] = ()) -> Nursery:
    """Return the nursery of a process, which is told by its id: a fork has to have its own.

    In a sandbox there is one for every set of files that are to be seen.
    """
    return Nursery(files)


def tend(fileno: int) -> None:
    """Fork a child for every request on a line, until it is closed; what children leave behind is killed."""
    from ntbench.engine.child import serve

    # Whoever leaves its own process group still becomes a child of this process when its parent ends.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line, active = socket.socket(fileno=fileno), set[int]()
    while True:
        request, fds, _, _ = socket.recv_fds(line, 8, 1)
        _sweep(active)
        if len(request) < 8 or not fds:
            break
        child = os.fork()
        if not child:
            line.close()
            _confine(int.from_bytes(request, "big"))
            answers = socket.socket(fileno=fds[0])
            answers.sendall(_HERE)
            serve(answers)
            os._exit(0)
        active.add(child)
        os.close(fds[0])
        line.sendall(_HERE)
    for child in active:
        end(child)
    _sweep(set())


def _confine(memory_mb: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (held + memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end(child: int) -> None:
    """Kill a process and its group."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)


def _sweep(active: set[int]) -> None:
    """Forget children that ended, and kill what they left behind."""
    children = {int(c) for c in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}
    for stray in children - active:
        end(stray)
    while True:
        with suppress(ChildProcessError):
            done, _ = os.waitpid(-1, os.WNOHANG)
            if done:
                active.discard(done)
                continue
        return
