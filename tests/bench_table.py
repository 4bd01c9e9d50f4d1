"""A plug-in of pytest for `make bench`: what the benchmarks measured today, beside the goals, in one table."""

from __future__ import annotations

from typing import Any


def figure(benchmark: Any, what: str, today: str, goal: str) -> None:
    """Keep one line of the table."""
    benchmark.extra_info.setdefault("lines", []).append((what, today, goal))


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    found = [line for held in (session.benchmarks if session else ()) for line in held.extra_info.get("lines", ())]
    if not found:
        return
    lines = [("what", "today", "goal"), *found]
    widths = [max(len(line[k]) for line in lines) for k in range(3)]
    terminalreporter.section("today's figures beside the goals")
    for line in lines:
        terminalreporter.write_line("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
