"""What papers published beside what their own protocols give here, and what was found to make the distance."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path

from pydantic import Field

from ntbench.measure.areas import log_range
from ntbench.measure.intervals import Interval
from ntbench.measure.reproduced import Quantity, Reproduction
from ntbench.report.display import MISSING, number, percent
from ntbench.report.templating import markdown
from ntbench.types import Arch, Recipe, Task

from .reproductions import read_all

WORDS: dict[Quantity, str] = {
    "slc": "SLC-AUC",
    "accuracy": "target accuracy after the attack",
    "zero_shot": "target accuracy before any attack",
    "source": "source accuracy after protection",
    "drop": "loss of source accuracy",
    "sparsity": "share of zeros",
}
SCRATCH = "scratch"


class Cause(Recipe):
    """What is changed, in words: another row in which one thing is, or the attack that scratch is trained by."""

    change: str
    row: str = ""
    scratch: str = ""


class Claim(Recipe):
    """A number that a paper or its code published, and the row of a suite that repeats it.

    `published` is a fraction, or an area over a log range of `span`. `arch` and `data`, the pair of domains, are the
    paper's.
    """

    paper: str
    suite: str
    task: str
    row: str
    quantity: Quantity
    published: float
    span: float = Field(default=1.0, gt=0)
    arch: str
    data: tuple[str, str]
    setting: str
    causes: tuple[Cause, ...] = ()

    @property
    def place(self) -> tuple[str, str, Quantity, str]:
        """Return which claims belong together: those that a paper ranks its sides by."""
        return (self.suite, self.task, self.quantity, self.paper)


def known_claims() -> list[Claim]:
    """Return the claims that the project keeps."""
    text = resources.files("ntbench.leaderboard").joinpath("claims.toml").read_text(encoding="utf-8")
    return [Claim.model_validate(entry) for entry in tomllib.loads(text)["claims"]]


def render(folder: Path) -> str:
    """Return the page of claims from the reproductions in a folder."""
    return page(known_claims(), read_all(folder))


def page(claims: Sequence[Claim], found: Mapping[str, Reproduction]) -> str:
    """Return claims beside what was found, as Markdown; a claim that nothing has run for says so."""
    lines = [_line(claim, found) for claim in claims]
    orders = [_order(list(group), found) for _, group in groupby(claims, key=lambda claim: claim.place)]
    causes = [cause for claim in claims for cause in _causes(claim, found)]
    after = dict.fromkeys((claim.suite, claim.task) for claim in claims if claim.quantity == "accuracy")
    attacks = [line for suite, task in after if suite in found for line in _under_each(task, found[suite])]
    template = markdown("ntbench.leaderboard").get_template("claims.md.j2")
    return template.render(lines=lines, orders=[o for o in orders if o], attacks=attacks, causes=causes)


def kind(claim: Claim, reproduction: Reproduction) -> str:
    """Return `reproduced` on the paper's data and network, `transposed` on others."""
    task, suite = _task(claim, reproduction), reproduction.suite
    whole = task.train_samples is None and (task.source, task.target) == claim.data
    return "reproduced" if whole and suite.arch == Arch(name=claim.arch) else "transposed"


def ours(claim: Claim, found: Mapping[str, Reproduction], row: str = "", scratch: str = "") -> Interval | None:
    """Return our number for a claim, or for another row or scratch in its place; None where nothing has run."""
    reproduction = found.get(claim.suite)
    if reproduction is None:
        return None
    value = reproduction.number(claim.task, row or claim.row, claim.quantity, scratch)
    return None if value.point != value.point else value


def _line(claim: Claim, found: Mapping[str, Reproduction]) -> dict[str, str]:
    value = ours(claim, found)
    said = {
        "paper": claim.paper,
        "task": claim.task,
        "row": claim.row,
        "quantity": WORDS[claim.quantity],
        "published": _number(claim, claim.published, claim.span),
        "setting": claim.setting,
    }
    if value is None:
        return said | {"ours": MISSING, "distance": MISSING, "seeds": MISSING, "kind": "not run"}
    reproduction = found[claim.suite]
    return said | {
        "ours": _with_ends(claim, value, reproduction),
        "distance": percent(_distance(claim, value, reproduction), signed=True),
        "seeds": str(len({r.seed for r in reproduction.releases if (r.task, r.row) == (claim.task, claim.row)})),
        "kind": kind(claim, reproduction),
    }


def _span(claim: Claim, reproduction: Reproduction) -> float:
    return log_range(reproduction.counts(claim.task)) if claim.quantity == "slc" else 1.0


def _distance(claim: Claim, value: Interval, reproduction: Reproduction) -> float:
    return value.point / _span(claim, reproduction) - claim.published / claim.span


def _number(claim: Claim, value: float, span: float) -> str:
    if claim.quantity != "slc":
        return percent(value)
    return f"{number(value, signed=True)} ({percent(value / span, signed=True)})"


def _with_ends(claim: Claim, value: Interval, reproduction: Reproduction) -> str:
    low, high = (number(end, signed=True) if claim.quantity == "slc" else percent(end) for end in value[1:])
    ends = f" [{low}, {high}]" if value.low < value.high else ""
    return f"{_number(claim, value.point, _span(claim, reproduction))}{ends}"


def _order(claims: Sequence[Claim], found: Mapping[str, Reproduction]) -> dict[str, str] | None:
    """Return in words how a paper ranks its sides by a number and how they stand here, where there are several."""
    values = {claim.row: ours(claim, found) for claim in claims}
    published = {claim.row: claim.published for claim in claims}
    here = {row: value.point for row, value in values.items() if value is not None}
    if claims[0].quantity == "slc":
        published, here = {SCRATCH: 0.0} | published, {SCRATCH: 0.0} | here
    shown = {row: value for row, value in published.items() if row in here}
    if len(shown) < 2:
        return None
    theirs, mine = _ranked(shown), _ranked({row: here[row] for row in shown})
    said = {"paper": claims[0].paper, "task": claims[0].task, "quantity": WORDS[claims[0].quantity]}
    return said | {"published": " < ".join(theirs), "ours": " < ".join(mine), "same": "yes" if theirs == mine else "no"}


def _ranked(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=values.__getitem__)


def _under_each(task: str, reproduction: Reproduction) -> Iterator[dict[str, str]]:
    """Yield every attack of a suite with what all of its rows come to under it, the lowest first."""
    for label in dict.fromkeys(run.attack for run in reproduction.runs if run.task == task):
        values = {row: value.point for row, value in reproduction.under(task, label).items()}
        ranked = (f"{row} {percent(values[row])}" for row in _ranked(values))
        whose = "yes" if label == reproduction.suite.paper.attack else "no"
        yield {"task": task, "attack": label, "paper": whose, "sides": " < ".join(ranked)}


def _causes(claim: Claim, found: Mapping[str, Reproduction]) -> Iterator[dict[str, str]]:
    before = ours(claim, found)
    for cause in claim.causes:
        after = ours(claim, found, cause.row, cause.scratch)
        if before is not None and after is not None:
            reproduction = found[claim.suite]
            yield {
                "claim": f"{claim.paper}, {claim.task}, {claim.row}, {WORDS[claim.quantity]}",
                "change": cause.change,
                "run": cause.row or f"{SCRATCH}, {cause.scratch}",
                "before": percent(_distance(claim, before, reproduction), signed=True),
                "after": percent(_distance(claim, after, reproduction), signed=True),
            }


def _task(claim: Claim, reproduction: Reproduction) -> Task:
    return reproduction.suite.with_tasks((claim.task,)).tasks[0]
