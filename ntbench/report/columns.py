"""The columns of every table that people see: a heading, the field that the glossary explains, and its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ntbench.report.display import (
    MISSING,
    Record,
    bounded,
    count,
    factor,
    number,
    percent,
    points,
    rank,
    row_name,
    seconds,
    significant,
    some,
    text,
    verdict,
    with_interval,
    with_spread,
    yes,
)
from ntbench.report.words import worded
from ntbench.types import with_mask

COSTS = {"steps": "steps", "samples": "images shown", "flops": "FLOPs", "seconds": "seconds"}
QUANTILES = (50, 80, 90, 95)
LEAST = ("leak", "uplift", "compute_uplift", "iqm", "slc", "paper_slc")
"""Numbers of a row that are the better for a defense the less they are."""


@dataclass(frozen=True)
class Column:
    """One column of a rendered table; where `numeric`, its texts stand on the right.

    `least` names the number of a record that is the better for a defense the less it is, if there is one.
    """

    heading: str
    field: str
    text: Callable[[Record], str]
    numeric: bool = True
    least: str = ""

    def worded(self, objective: str) -> Column:
        """Return the column in the words of an objective, given by its name."""
        text = self.text
        return replace(self, heading=worded(self.heading, objective), text=lambda row: worded(text(row), objective))


def _interval(heading: str, field: str, show: Callable[..., str] = number, signed: bool = True) -> Column:
    return Column(heading, field, lambda r: with_interval(r, field, show, signed), least=_least(field))


def _number(heading: str, field: str, show: Callable[..., str] = number) -> Column:
    return Column(heading, field, lambda r: show(r.get(field)))


def _signed(heading: str, field: str, show: Callable[..., str] = number) -> Column:
    return Column(heading, field, lambda r: show(r.get(field), signed=True), least=_least(field))


def _least(field: str) -> str:
    return field if field in LEAST else ""


def _words(heading: str, field: str) -> Column:
    return Column(heading, field, lambda r: text(r, field), numeric=False)


def _paper_attack(record: Record) -> str:
    name = text(record, "paper_attack")
    return name if name == MISSING else with_mask(name, record.get("paper_mask", ""))


def _failed(record: Record) -> str:
    return f"{count(record.get('failed'))} of {count(record.get('cells'))}"


def _spread(heading: str, field: str, show: Callable[..., str] = number) -> Column:
    return Column(heading, field, lambda r: with_spread(r, field, show))


def _speedup(cost: str, q: int) -> Column:
    return _number(f"{q}%", f"speedup_{cost}_{q}", factor)


DEFENSE = Column("Defense", "defense", row_name, numeric=False)
LEAK = _interval("Leak", "leak", signed=False)
SLC = _signed("SLC-AUC", "slc")
SPEEDUP = Column("Speed-up", "speedup", lambda r: bounded(r, "speedup"), least="speedup")
DROP = Column("Source drop", "drop", lambda r: MISSING if yes(r, "baseline") else points(r.get("drop")), least="drop")
ATTACK = _words("Strongest attack", "attack")
VERDICT = Column("Verdict", "verdict", verdict, numeric=False)

HEADLINE = (DEFENSE, LEAK, SLC, SPEEDUP, DROP, ATTACK, VERDICT)
OVER_COMPUTE = _signed("Over compute, points", "compute_uplift", points)
HEADLINES = {"samples": HEADLINE, "compute": tuple(OVER_COMPUTE if column is SLC else column for column in HEADLINE)}
"""The seven columns by the axis that leak and verdict rest on."""
UPLIFT = _interval("Uplift, points", "uplift", points)
BESIDE = (DEFENSE, LEAK, _signed("Uplift, points", "uplift", points), SPEEDUP, ATTACK, VERDICT)
CLAIM = (
    DEFENSE,
    Column("Fixed attack", "paper_attack", _paper_attack, numeric=False),
    _interval("SLC-AUC under it", "paper_slc"),
    _number("Overhead under it", "paper_overhead", factor),
    _signed("SLC-AUC of the strongest", "slc"),
    VERDICT,
)
GATES = (
    DEFENSE,
    VERDICT,
    _words("Why", "reason"),
    _words("Gates not passed", "gates"),
    _number("Seeds", "seeds", count),
    Column("Cells failed", "failed", _failed),
)
RANKS = (
    DEFENSE,
    Column("Rank", "rank", rank),
    UPLIFT,
    _interval("Over compute, points", "compute_uplift", points),
    _signed("Over scratch, points", "scratch_uplift", points),
)
CHOICE = (
    DEFENSE,
    _words("Strongest attack at each count, fewest samples first", "attacks"),
    _number("Takes the baseline, %", "takes_baseline", percent),
    _number("Leak, choice on test", "oracle_leak"),
    _number("Leak, own choice", "own_leak"),
    _signed("Uplift, choice on test, points", "oracle_uplift", points),
    _signed("Uplift, own choice, points", "own_uplift", points),
)
PACE = (
    DEFENSE,
    _interval("Speed-up", "speedup", factor),
    _interval("SLC-AUC of the release alone", "slc"),
    Column("Overhead of the release alone", "overhead", lambda r: bounded(r, "overhead")),
)
SPEEDUPS = {cost: (DEFENSE, *(_speedup(cost, q) for q in QUANTILES)) for cost in COSTS}
TOGETHER = (
    DEFENSE,
    LEAK,
    UPLIFT,
    _interval("Interquartile mean, points", "iqm", points),
    _number("Tasks", "tasks", count),
)
KEEPS = (
    DEFENSE,
    _number("Source before, %", "source_before", percent),
    _number("Source after, %", "source_after", percent),
    _interval("Drop, points", "drop", points),
    _number("Target before any attack, %", "zero_shot", percent),
    _number("Zeros, %", "sparsity", percent),
    _number("Source error before", "natural_before", significant),
    _number("Source error after", "natural", significant),
    _spread("Frechet distance before", "frechet_before"),
    _spread("Frechet distance after", "frechet"),
    _spread("Kernel distance before", "kid_before", significant),
    _spread("Kernel distance after", "kid", significant),
    _number("Clipped scores, %", "clipped", some),
)
PAYS = (
    DEFENSE,
    _words("Data needed", "needs"),
    _number("Steps", "protect_steps", count),
    _number("Seconds", "protect_seconds", seconds),
    _number("FLOPs", "protect_flops", count),
    _number("Time over pretraining", "protect_seconds_ratio", factor),
    _number("Trials before", "trials", count),
    _number("Their steps", "tuning_steps", count),
)
SEARCH = (
    DEFENSE,
    _signed("Uplift of the search, points", "search_uplift", points),
    _number("Its steps", "search_steps", count),
    _signed("Uplift of the grid, points", "grid_uplift", points),
    _number("Its steps", "grid_steps", count),
)
FAILURES = (
    _words("Task", "title"),
    DEFENSE,
    _words("Attack", "attack"),
    _number("Samples", "samples", count),
    _number("Seed", "seed", count),
    _words("Status", "status"),
    _words("Reason", "error"),
)
PERMITTED = (
    DEFENSE,
    _number("Permitted drop, points", "permitted", points),
    LEAK,
    _interval("Source drop, points", "drop", points),
    VERDICT,
)
ABLATIONS = (
    DEFENSE,
    _words("Changed", "changed"),
    LEAK,
    _interval("Source drop, points", "drop", points),
    VERDICT,
)
FACED = (
    _words("Defense", "defense"),
    _words("Faced", "faced"),
    _words("Did not apply", "refused"),
    _words("Not in its plan", "unplanned"),
    _words("Failed", "broken"),
)


def filled(rows: Sequence[Record], columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns that say something about at least one row."""
    return tuple(column for column in columns if any(column.text(row) != MISSING for row in rows))


def dimmed(record: Record) -> bool:
    """Return whether a row is there to compare with: a control, a baseline, or one of the ranked track without rank."""
    unranked = record.get("track") == "target" and not yes(record, "ranked")
    return unranked or yes(record, "control") or yes(record, "baseline")
