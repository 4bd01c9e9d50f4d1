"""One number's whole way: from the recipe of a cell to the rows that it decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from rich.console import RenderableType
from rich.text import Text

from ntbench.errors import UserError
from ntbench.report.columns import Column
from ntbench.report.display import count, number, percent, records
from ntbench.report.origin import plain
from ntbench.report.portrait import ATTACKERS
from ntbench.report.terminal import facts, tabled
from ntbench.report.views import View
from ntbench.report.words import worded
from ntbench.types import MethodSpec, Protection, Result, columns_of, with_mask

SCORES = (
    Column("Budget, steps", "step", lambda row: count(row["step"])),
    Column("In T90", "share", lambda row: number(row["share"])),
    Column("Validation, %", "val", lambda row: percent(row["val"])),
    Column("Test, %", "test", lambda row: percent(row["test"])),
    Column("Images shown", "samples", lambda row: count(row["samples"])),
    Column("FLOPs", "flops", lambda row: count(row["flops"])),
    Column("Own samples, %", "own", lambda row: percent(row["own"])),
)


def found(results: Sequence[Result], key: str) -> Result:
    """Return the cell of a key, of which the beginning is enough; raises UserError where none or several begin so."""
    hits = np.flatnonzero(np.char.startswith(columns_of(results).keys, key))
    if len(hits) != 1:
        said = f"begins {len(hits)} of its keys; give more of it" if len(hits) else "is the key of none of its cells"
        raise UserError(f"{key!r} {said}; `ntbench show RUN --row ROW` and report/results.csv have keys")
    return results[int(hits[0])]


def way(result: Result, choices: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield what decides a cell, what it reached, and which rows take it; `choices` are those with keys."""
    cell, done = result.cell, result.protection or Protection()
    yield Text(f"{cell.key}: {cell.task.title}, {cell.defense.label} under {cell.attack.label}", style="bold")
    said = {
        "Ended": f"{result.status}. {result.error.partition(chr(10))[0]}".strip(". "),
        "Data": _data(result),
        "1 Pretraining": _pretraining(result, done),
        "2 Protection": f"{_method(cell.defense)}; key {cell.protect_key}. {_protected(done)}",
        "3 Attack": f"{_method(cell.attack)}; track {result.track}, mask {cell.mask}. {_held(result)}",
        "4 Budget": f"up to {cell.budget.steps} steps, {cell.budget.said}",
    }
    yield facts({name: worded(text, cell.objective.name) for name, text in said.items()})
    if result.trajectory.step:
        yield tabled(View("scores", "5 Scores at the end of every budget", SCORES, _scores(result)), "5 Scores")
    yield facts({"6 Decides": _decides(result, choices)})


def _data(result: Result) -> str:
    task, origin = result.cell.task, result.provenance
    digests = ", ".join(f"{name} {plain(value)}" for name, value in (origin.data if origin else {}).items())
    return f"{task.image_size} pixels, seed {result.cell.seed}; {result.images} test images. {digests}"


def _pretraining(result: Result, done: Protection) -> str:
    cell, used = result.cell, result.cell.start
    trained = f" on {plain(cell.origin)}: {used.optimizer} {used.lr:g}, {used.schedule}, {used.steps} steps"
    told = trained if used.trained else ": weights that stay as they come"
    return f"{cell.arch.name}{told}; key {cell.pretrain_key}. Source accuracy {percent(done.source_before)}%"


def _protected(done: Protection) -> str:
    if done.source_before is None or done.source_after is None:
        return done.error.partition("\n")[0]
    before, after = percent(done.source_before), percent(done.source_after)
    return f"Source accuracy {after}% after {before}%, in {count(done.protect_steps)} steps"


def _held(result: Result) -> str:
    cell = result.cell
    said = f"It holds {cell.samples} target samples"
    said += f" and {100 * cell.source_share:g}% of the source" if result.track in ("source", "queries") else ""
    chosen = f"; it says that it chose {result.choice}" if result.choice else ""
    return f"{said}, and is chosen by {'its own samples' if cell.knowledge == 'own' else 'other seeds'}{chosen}"


def _method(spec: MethodSpec) -> str:
    params = ", ".join(f"{name} {plain(value)}" for name, value in spec.params.items())
    return f"{spec.name} version {spec.version}, code {spec.code}: {params or 'no settings'}"


def _scores(result: Result) -> list[dict[str, object]]:
    run = result.trajectory
    columns = {name: column for name, column in run if name not in ("seconds", "correct")}
    rows = [dict(zip(columns, point, strict=True)) for point in zip(*columns.values(), strict=True)]
    return [row | {"share": row["step"] / result.cell.budget.unit} for row in rows]


def _decides(result: Result, choices: pd.DataFrame) -> str:
    if result.cell.knowledge == "own":
        return "the column `own_leak` alone, which attackers have who go by their own samples"
    hits = records(choices[choices["key"] == result.cell.key])
    if not hits:
        return "no row: at every budget another run was better on the validation images of the other seeds"
    said = (f"{ATTACKERS[h['attacker']].lower()} of {_row(h)} takes its {h['steps']} steps" for h in hits)
    where = f"at {result.cell.samples} samples and seed {result.cell.seed}"
    return f"{where}: {'; '.join(said)}"


def _row(hit: dict[str, object]) -> str:
    return f"{with_mask(hit['defense'], hit['mask'])} in the track {hit['track']}"
