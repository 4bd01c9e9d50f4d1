"""Releases leave a run's folder: the weights of a row at a seed, with a card of where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ntbench.engine.session import Session
from ntbench.errors import UserError, unknown
from ntbench.learn.cards import Card, write_release
from ntbench.learn.models import read_weights
from ntbench.learn.variants import classes_of
from ntbench.measure.board import leaderboard_table
from ntbench.types import Cell, Protection, Provenance, Result, domain_label

FACTS = ("source_before", "source_after", "zero_shot", "sparsity", "needs")
BOARD = ("leak", "uplift", "slc", "speedup", "drop")
"""What of a row's numbers stands on a card, with both ends; leak and uplift are against the strongest attacker."""


def export(session: Session, defense: str, seed: int, file: Path, task: str = "") -> Card:
    """Write the release of a row at a seed, on a task where there are several, and return its card.

    Raises UserError on rows, seeds and tasks that the run does not have, and on protections that failed.
    """
    results = session.results()
    result = _found(results, defense, seed, task)
    artifact = session.store.artifact_path(result.cell.protect_key)
    if result.protection is None or result.protection.status != "ok" or not artifact.exists():
        raise UserError(f"{defense!r} at seed {seed} has no release in {str(session.folder)!r}; run it again")
    weights, _ = read_weights(artifact)
    card = card_of(result.cell, weights, result.protection, result.provenance)
    card["board"] = board_of(leaderboard_table(results, session.suite), result.cell)
    return write_release(file, weights, card)


def _found(results: Sequence[Result], defense: str, seed: int, task: str) -> Result:
    rows = [r for r in results if r.cell.defense.label == defense]
    if not rows:
        raise unknown("row", defense, {r.cell.defense.label for r in results})
    tasks = {r.cell.task.name for r in rows}
    if task and task not in tasks:
        raise unknown("task", task, tasks)
    if not task and len(tasks) > 1:
        raise UserError(f"{defense!r} has a release on each of {', '.join(sorted(tasks))}; name one with --task")
    here = [r for r in rows if r.cell.seed == seed and r.cell.task.name in (task or tasks)]
    if not here:
        raise UserError(f"{defense!r} did not run at seed {seed}; seeds: {sorted({r.cell.seed for r in rows})}")
    return next((r for r in here if r.protection), here[0])


def card_of(cell: Cell, weights: Mapping[str, Tensor], done: Protection | None, origin: Provenance | None) -> Card:
    """Return what the weights of a cell's release are, how they were made, and what is known of them."""
    names = {cell.task.source: domain_label(cell.task.source), cell.task.target: domain_label(cell.task.target)}
    return {
        "protocol": cell.protocol,
        "task": _nameless(cell.task.data),
        "arch": cell.arch.model_dump(mode="json"),
        "classes": classes_of(weights, cell.arch),
        "pretrain": _nameless(cell.start.model_dump(mode="json")),
        "defense": cell.defense.label,
        "recipe": _nameless(cell.defense.recipe()),
        "seed": cell.seed,
        "keys": {"pretrain": cell.pretrain_key, "protect": cell.protect_key},
        "data": {_named(split, names): digest for split, digest in origin.data.items()} if origin else {},
        "versions": origin.versions if origin else {},
        "scores": {name: getattr(done, name) for name in FACTS} if done else {},
    }


def _named(split: str, names: dict[str, str]) -> str:
    domain, _, part = split.rpartition("/")
    return f"{names.get(domain, domain)}/{part}"


def _nameless(value: Any) -> Any:
    """Return a recipe without the folders of a machine: of a path, the last part."""
    if isinstance(value, dict):
        return {key: _nameless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nameless(item) for item in value]
    return domain_label(value) if isinstance(value, str) and "/" in value else value


def board_of(board: pd.DataFrame, cell: Cell) -> dict[str, Any]:
    """Return what a board says of the release that a cell attacks, against the strongest attacker."""
    here = (board["task"] == cell.task.name) & (board["defense"] == cell.defense.label)
    rows = board[here & (board["track"] == "target") & (board["mask"] == "dense")].to_dict("records")
    names = [f"{name}{end}" for name in BOARD for end in ("", "_low", "_high")]
    kept = [name for name in ("verdict", "interval", "seeds", *names) if rows and name in rows[0]]
    return {name: _said(rows[0][name]) for name in kept}


def _said(value: Any) -> Any:
    # JSON knows no infinite numbers.
    return None if pd.isna(value) else str(value) if value in (inf, -inf) else value
