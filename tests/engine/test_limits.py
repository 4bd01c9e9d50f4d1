from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

from ntbench.engine.limits import TimeLimitError, guarded, time_limit


def spin() -> None:
    while True:
        pass


def sleep() -> None:
    time.sleep(60)


def swallow() -> None:
    while True:
        try:
            time.sleep(60)
        except Exception:
            continue


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> NoReturn:
        raise error

    return work


def in_process(code: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("work", [spin, sleep, swallow])
def test_work_that_takes_too_long_is_stopped(work: Callable[[], None]) -> None:
    start = time.perf_counter()
    assert guarded(0.2, work) == ("timeout", "took longer than 0.2 seconds")
    assert 0.15 < time.perf_counter() - start < 5


def test_work_in_time_is_not_disturbed_later() -> None:
    done: list[int] = []
    before = signal.getsignal(signal.SIGALRM)
    assert guarded(0.1, lambda: done.append(1)) == ("ok", "")
    time.sleep(0.2)
    assert done == [1]
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_exception_is_none_that_methods_catch() -> None:
    assert not issubclass(TimeLimitError, Exception)
    with pytest.raises(TimeLimitError), time_limit(0.05):
        sleep()


STUBBORN = """
import threading, time
from ntbench.engine import limits
limits.GRACE_SECONDS = 0.3
def work():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
{call}
print("survived")
"""


@pytest.mark.parametrize(
    "call",
    ["limits.guarded(0.2, work)", "t = threading.Thread(target=limits.guarded, args=(0.2, work)); t.start(); t.join()"],
    ids=["main thread", "other thread"],
)
def test_a_process_that_does_not_obey_is_ended(call: str) -> None:
    done = in_process(STUBBORN.format(call=call))
    assert done.returncode == 1
    assert "survived" not in done.stdout
    assert "Timeout" in done.stderr and "in work" in done.stderr


def test_work_in_another_thread_ends_normally_within_its_time() -> None:
    found: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: found.append(guarded(30, lambda: None)))
    thread.start()
    thread.join()
    assert found == [("ok", "")]


HUNGRY = """
from ntbench.engine.limits import guarded, limit_memory
{prepare}
limit_memory(600)
limit_memory(600)
small = guarded(30, lambda: {make}(100))
large = guarded(30, lambda: {make}(900))
print(small[0], large[0], large[1].splitlines()[0], sep="|")
"""


@pytest.mark.parametrize(
    ("prepare", "make"),
    [
        ("make = lambda mb: bytearray(mb * 2**20)", "make"),
        ("import torch; make = lambda mb: torch.ones(mb * 2**18)", "make"),
    ],
    ids=["python", "torch"],
)
def test_memory_beyond_the_limit_is_refused_and_the_process_lives_on(prepare: str, make: str) -> None:
    done = in_process(HUNGRY.format(prepare=prepare, make=make))
    assert done.stdout.strip() == "ok|error|out of memory", done.stderr


@pytest.mark.parametrize(
    ("error", "status", "first"),
    [
        (SystemExit(3), "error", "called exit(3)"),
        (FloatingPointError("the loss is nan at step 7"), "diverged", "the loss is nan at step 7"),
        (ValueError("first\nsecond"), "error", "ValueError: first"),
        (MemoryError(), "error", "out of memory"),
        (GeneratorExit(), "error", "GeneratorExit: "),
    ],
)
def test_ends_and_their_reasons(error: BaseException, status: str, first: str) -> None:
    found, reason = guarded(30, raising(error))
    assert (found, reason.splitlines()[0]) == (status, first)


def test_a_reason_names_the_line_that_failed() -> None:
    _, reason = guarded(30, raising(KeyError("x")))
    assert "test_limits.py" in reason and "raise error" in reason


def test_an_interruption_of_the_user_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded(30, raising(KeyboardInterrupt()))
