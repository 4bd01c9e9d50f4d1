"""The table of what the papers' own protocols give: every side as its paper runs and reports it."""

from __future__ import annotations

from ntbench.measure.reproduced import Reproduction
from ntbench.report.columns import Column
from ntbench.report.display import Record, count, number, percent, text, with_interval
from ntbench.report.views import View
from ntbench.suite import Suite
from ntbench.types import Task, with_mask

NOTE = (
    "Accuracy on the target in percent, by target samples; SLC-AUC is against scratch as the paper of the row trains "
    "it. `best test` is chosen on the data that it is reported on: these runs enter no worst case and have no verdict."
)


def protocols(found: Reproduction, task: Task) -> list[View]:
    """Return the rows of a task under their papers' settings, none where no run has a protocol."""
    counts = found.counts(task.name)
    rows = [_record(found, task.name, row) for entry in found.suite.defenses for row in entry.rows] if counts else []
    by_count = [Column(count(n), str(n), lambda r, n=n: percent(r.get(str(n)))) for n in counts]  # type: ignore[misc]
    columns = (
        Column("Defense", "defense", lambda r: text(r, "defense"), numeric=False),
        Column("Attack of the paper", "attack", lambda r: text(r, "attack"), numeric=False),
        Column("Reports", "select", lambda r: text(r, "select"), numeric=False),
        *by_count,
        Column("SLC-AUC", "slc", lambda r: with_interval(r, "slc", number)),
        Column("Source after, %", "source", lambda r: percent(r.get("source"))),
        Column("Target before, %", "zero_shot", lambda r: percent(r.get("zero_shot"))),
    )
    shown = [row for row in rows if row["seeds"]]
    return [View("protocols", "By the papers' own protocols", columns, shown, NOTE)] if shown else []


def _record(found: Reproduction, task: str, row: str) -> Record:
    attack, mask = found.attack(row)
    curves = found.curves(task, row)
    means = {str(n): found.mean(curve[n] for curve in curves.values() if n in curve).point for n in found.counts(task)}
    slc = found.number(task, row, "slc")
    return {
        "defense": row,
        "attack": with_mask(attack, mask),
        "select": _select(found.suite, attack),
        "seeds": len(curves),
        **means,
        **dict(zip(("slc", "slc_low", "slc_high"), slc, strict=True)),
        **{name: found.number(task, row, name).point for name in ("source", "zero_shot")},
    }


def _select(suite: Suite, attack: str) -> str:
    labels = {label: entry.protocol for entry in suite.attacks for label, _ in entry.variants()}
    protocol = labels.get(attack)
    return protocol.select if protocol else ""
