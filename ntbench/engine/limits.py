"""Limits on untrusted code: wall time and memory of the process that runs it."""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ntbench.errors import ForeignError, UnusableError
from ntbench.types import Status

GRACE_SECONDS = 20.0


class TimeLimitError(BaseException):
    """The block took longer than it may; no `except Exception` of a method swallows it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitError in a block after some seconds; end the process if it has not obeyed a little later.

    The exception needs the main thread; elsewhere only the end of the process is left.
    """
    listening = threading.current_thread() is threading.main_thread()
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=sys.__stderr__ or 2)
    if listening:
        before = signal.signal(signal.SIGALRM, _expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        if listening:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def limit_memory(megabytes: int) -> None:
    """Make allocations of this process fail beyond so much private memory, on top of what it held at the first call."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_held_bytes() + megabytes * 2**20, hard))


def guarded(seconds: float, work: Callable[[], None]) -> tuple[Status, str]:
    """Run untrusted work within a time limit and return how it ended and why."""
    try:
        with time_limit(seconds):
            work()
    except TimeLimitError:
        return "timeout", f"took longer than {seconds:g} seconds"
    except TimeoutError as error:
        return "timeout", str(error)
    except FloatingPointError as error:
        return "diverged", str(error)
    except UnusableError as error:
        return "unusable", str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return "error", _reason(error)
    return "ok", ""


@cache
def _held_bytes() -> int:
    # Libraries alone map about a gigabyte of private memory without using it.
    sizes = Path("/proc/self/statm")
    return int(sizes.read_text().split()[5]) * resource.getpagesize() if sizes.exists() else 0


def _expire(signum: int, frame: Any) -> None:
    raise TimeLimitError


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error):
        first = "out of memory"
    elif isinstance(error, ForeignError):
        return str(error)
    elif isinstance(error, SystemExit):
        first = f"called exit({error.code})"
    else:
        first = f"{type(error).__name__}: {error}".splitlines()[0]
    return "\n".join([first, "".join(traceback.format_exception(error, limit=-3)).strip()])
