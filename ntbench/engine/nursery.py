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
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_SUBREAPER = 36


class Nursery:
    """The trusted end: starts children one by one."""

    def __init__(self) -> None:
        """Start the process; it imports while this one goes on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [sys.executable, "-c", f"from ntbench.engine.nursery import tend; tend({theirs.fileno()})"]
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
        theirs.close()
        self._line = ours

    def fork(self, memory_mb: int) -> tuple[int, socket.socket]:
        """Return the process id of a new child and the line to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        socket.send_fds(self._line, [memory_mb.to_bytes(8, "big")], [theirs.fileno()])
        theirs.close()
        answer = self._line.recv(8)
        if len(answer) < 8:
            raise RuntimeError("the process that starts foreign code has ended")
        return int.from_bytes(answer, "big"), ours


@cache
def nursery(process: int) -> Nursery:
    """Return the nursery of a process, which is told by its id: a fork has to have its own."""
    return Nursery()


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
            serve(socket.socket(fileno=fds[0]))
            os._exit(0)
        active.add(child)
        os.close(fds[0])
        line.sendall(child.to_bytes(8, "big"))
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
