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
import time
from contextlib import suppress
from pathlib import Path

from ntbench.engine import sandbox

_SUBREAPER = 36
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group of whoever sent something."""
_HERE = b"."
_SWEEP = bytes(8)
ANSWER_SECONDS = 300.0
"""What the heavy imports may take on a loaded machine."""
PROMPT_SECONDS = 60.0
"""What a fork may take after them."""
MOST_GENERATIONS = 100
"""How often what strays left behind is killed in turn: whoever forks without an end is left to the watchdog."""


class Nursery:
    """The trusted end: starts children one by one."""

    def __init__(self, files: tuple[str, ...] = ()) -> None:
        """Start the process; it imports while this one goes on. In a sandbox it sees these files beside Python."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        confined = sandbox.confined()
        told = f"{theirs.fileno()}, {confined}"
        command = [sys.executable, "-c", f"from ntbench.engine.nursery import tend; tend({told})"]
        nothing = subprocess.DEVNULL
        before = sandbox.command(files) if confined else []
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
        """Return the process id of a new child and the line to it.

        Raises OSError or RuntimeError where the process ended or does not answer, whoever saw to that.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        _telling(ours)
        try:
            with theirs:
                socket.send_fds(self._line, [memory_mb.to_bytes(8, "big")], [theirs.fileno()])
            self.pid = _sender(self._line)
            self._line.settimeout(PROMPT_SECONDS)
            return _sender(ours), ours
        except (OSError, RuntimeError):
            ours.close()
            raise

    def sweep(self, child: int) -> None:
        """Have what a child left behind killed, once it has ended; nobody waits for that."""
        _await_end(child)
        with suppress(OSError):
            self._line.sendall(_SWEEP)

    def close(self) -> None:
        """End the process, and with it a sandbox and all that runs there."""
        self._line.close()
        end(self.process.pid)
        end(self.pid)
        self.process.wait()


def _telling(line: socket.socket) -> socket.socket:
    """Have the system tell who sends on a line, by the id that a process has here, whatever it has where it runs."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    line.settimeout(ANSWER_SECONDS)
    return line


def _await_end(process: int) -> None:
    """Wait for a moment until a process that was killed is gone or a zombie."""
    late = time.monotonic() + 1
    while time.monotonic() < late:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][:1]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.002)


def _sender(line: socket.socket) -> int:
    """Return the process that sent the next byte on a line."""
    said, told, _, _ = line.recvmsg(1, socket.CMSG_SPACE(_CREDENTIALS.size))
    found = [data for level, kind, data in told if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
    if not said or not found:
        raise RuntimeError("the process that starts foreign code has ended")
    return int(_CREDENTIALS.unpack(found[0])[0])


_nurseries: dict[tuple[int, tuple[str, ...]], Nursery] = {}


def forked(memory_mb: int, files: tuple[str, ...] = ()) -> tuple[Nursery, int, socket.socket]:
    """Return a new child with its nursery and the line to it; a nursery that ended or hangs is replaced.

    Every process has its own, told by its id, since a fork must not share it, and in a sandbox one for every set of
    files that are to be seen. Raises RuntimeError where a new one does not answer either.
    """
    key = (os.getpid(), files)
    for _ in range(2):
        if key not in _nurseries:
            _nurseries[key] = Nursery(files)
        try:
            return _nurseries[key], *_nurseries[key].fork(memory_mb)
        except (OSError, RuntimeError):
            _nurseries.pop(key).close()
    raise RuntimeError("no process for foreign code can be started; ntbench and torch must be importable there")


def tend(fileno: int, confined: bool) -> None:
    """Fork a child for every request on a line, until it is closed; what children leave behind is killed.

    In a sandbox, whose folders that can be written are its own, the files that they leave there go as well.
    """
    from ntbench.engine.child import serve

    # Whoever leaves its own process group still becomes a child of this process when its parent ends.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line, active = socket.socket(fileno=fileno), set[int]()
    while True:
        request, fds, _, _ = socket.recv_fds(line, 8, 1)
        _sweep(active)
        if confined and not active:
            sandbox.clear()
        if len(request) < 8:
            break
        if not fds:
            continue
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
    _reap(active)
    # What a stray has started becomes a child when the stray ends.
    for _ in range(MOST_GENERATIONS):
        children = {int(c) for c in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}
        strays = children - active
        if not strays:
            return
        for stray in strays:
            end(stray)
            _await_end(stray)
        _reap(active)


def _reap(active: set[int]) -> None:
    with suppress(ChildProcessError):
        while done := os.waitpid(-1, os.WNOHANG)[0]:
            active.discard(done)
