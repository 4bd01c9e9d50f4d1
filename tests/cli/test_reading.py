"""One row, one number's way, and two runs beside each other, of a board that nobody measured."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_board import COUNTS, SEEDS, small_results, small_suite

from ntbench.engine.manifest import read_manifest
from ntbench.engine.store import Store
from ntbench.measure.choices import choices_table, keyed
from ntbench.measure.standing import Study

Inside = Callable[..., Any]


def test_choices_are_what_the_gains_are_made_of() -> None:
    study = Study(small_results(), small_suite())
    table = keyed(choices_table(study, small_suite()), small_results())
    assert len(table) == 3 * len(COUNTS) * len(SEEDS) * len([*study.standings])
    scores = {r.cell.key: dict(zip(r.trajectory.step, r.trajectory.test, strict=True)) for r in small_results()}
    assert [scores[key][steps] for key, steps in zip(table["key"], table["steps"], strict=True)] == list(table["score"])
    (ntp,) = [s for s in study.standings if s.release.label == "ntp" and s.row.mask == "dense"]
    own = table[(table["defense"] == "ntp") & (table["mask"] == "dense")].pivot_table(
        index="samples", columns=["attacker", "seed"], values="score"
    )
    gains = (own["rational"] - own["baseline"]).to_numpy()
    assert gains == pytest.approx(ntp.gain.attacker.mean(axis=2))


def test_a_row_is_shown_with_its_numbers_and_cells(inside: Inside, small_run: Path) -> None:
    done = inside("show", small_run, "--row", "ntp")
    assert done.exit_code == 0, done.output
    keys = {result.cell.key[:8] for result in Store(small_run).results()}
    told = {word for line in done.stdout.splitlines() for word in line.split() if word in keys}
    assert len(told) >= 2 * len(COUNTS)
    for said in ("ntp (mask kept)", "Leak", "Verdicts and gates", "What is taken in the track target", "Baseline"):
        assert said in done.stdout
    assert "sophon" not in done.stdout


def test_a_number_is_told_from_recipe_to_row(inside: Inside, small_run: Path) -> None:
    study = Study(small_results(), small_suite())
    table = keyed(choices_table(study, small_suite()), small_results())
    taken = table[(table["defense"] == "ntp") & (table["mask"] == "dense") & (table["start"] == "ntp")].iloc[0]
    done = inside("explain", small_run, taken["key"][:10])
    assert done.exit_code == 0, done.output
    assert f"{taken['key']}: a to b, ntp under {taken['attack']}" in done.stdout
    said = f"rational attacker of ntp in the track target takes its {taken['steps']} steps"
    assert said in " ".join(done.stdout.split())
    assert f"{100 * taken['score']:.1f}" in done.stdout and "Source accuracy" in done.stdout
    assert done.stdout.rstrip().endswith(f"ntbench explain {small_run} {taken['key']} --again")


def test_a_cell_that_decides_nothing_says_so(inside: Inside, small_run: Path) -> None:
    weak = next(r for r in small_results() if r.cell.attack.label == "weak" and r.cell.defense.label == "none")
    assert (
        "6 Decides  no row: at every budget another run was better"
        in inside("explain", small_run, weak.cell.key).stdout
    )
    refused = next(r for r in small_results() if r.status == "inapplicable")
    assert "inapplicable. sophon releases no zeros" in inside("explain", small_run, _key("sophon", "keep")).stdout
    assert refused.cell.key in inside("explain", small_run, refused.cell.key).stdout


def _key(defense: str, mask: str) -> str:
    return next(r.cell.key for r in small_results() if (r.cell.defense.label, r.cell.mask) == (defense, mask))


def test_a_real_cell_is_computed_again_bit_for_bit(inside: Inside, smoke: Path, tmp_path: Path) -> None:
    result = next(r for r in Store(smoke).results() if r.cell.defense.label == "none" and r.status == "ok")
    assert "computed again: it matches bit for bit" in inside("explain", smoke, result.cell.key, "--again").stdout
    other = Path(shutil.copytree(smoke, tmp_path / "run"))
    run = result.trajectory.model_copy(update={"val": tuple(v + 0.25 for v in result.trajectory.val)})
    Store(other).add(result.model_copy(update={"trajectory": run}))
    done = inside("explain", other, result.cell.key, "--again")
    assert done.exit_code == 1 and "differs: val at" in done.stdout


def test_a_run_beside_itself_moves_nothing(inside: Inside, small_run: Path) -> None:
    done = inside("diff", small_run, small_run)
    count = len(small_results())
    assert f"{count} cells of {count} and {count} are the same recipes; 0 differ" in done.stdout, done.output
    assert "moved" not in done.stdout and "noise" not in done.stdout


def shifted(folder: Path, small_run: Path, by: float, defense: str = "ntp") -> Path:
    """Return a copy of the run in which one row's code is another and its scores are higher."""
    copy = Path(shutil.copytree(small_run, folder / "after"))
    held = read_manifest(copy)
    assert held
    cells, store = dict(held.cells), Store(copy)
    for result in store.results():
        if result.cell.defense.label == defense and result.trajectory.step:
            spec = result.cell.defense.model_copy(update={"code": "f" * 16})
            run = result.trajectory.model_copy(
                update={name: tuple(v + by for v in getattr(result.trajectory, name)) for name in ("val", "test")}
            )
            cell = result.cell.model_copy(update={"defense": spec})
            cell = type(cell).model_validate(cell.model_dump())
            cells[json.dumps(cell.coordinates)] = cell.key
            store.add(result.model_copy(update={"cell": cell, "trajectory": run}))
    held.model_copy(update={"cells": cells, "asked": tuple(cells.values())}).write(copy)
    return copy


def test_what_moved_and_what_is_noise(inside: Inside, small_run: Path, tmp_path: Path) -> None:
    done = inside("diff", small_run, shifted(tmp_path, small_run, 0.2))
    assert done.exit_code == 0, done.output
    assert "defense ntp" in done.stdout and "f" * 16 in done.stdout
    assert "attack weak" not in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("ntp ")]
    assert any("uplift," in row and row.rstrip().endswith("moved") for row in rows), done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith("sophon ")]


def test_a_run_of_denoisers_is_read_in_scores(inside: Inside, generation: Path, small_run: Path) -> None:
    cell = next(r.cell for r in Store(generation).results() if r.cell.defense.label == "sophon_generation")
    shown = " ".join(inside("show", generation, "--row", "sophon_generation").stdout.split())
    told = inside("explain", generation, cell.key).stdout
    beside = inside("diff", small_run, generation).stdout
    assert "Score" in shown and "steps and score are means" in shown and "Frechet distance after" in shown
    assert told.count("Source score ") == 2
    for text in (beside, inside("diff", generation, small_run).stdout):
        assert "axis" in text and "classification" in text and "denoising" in text
    assert not [text for text in (shown, told, beside) if re.search("accurac", text, re.IGNORECASE)]


MISTAKES = {
    "row": (["show", "{run}", "--row", "ntq"], "unknown row 'ntq'; did you mean 'ntp'?"),
    "key": (["explain", "{run}", "zz"], "'zz' is the key of none of its cells; `ntbench show RUN --row ROW`"),
    "short key": (["explain", "{run}", ""], "begins 160 of its keys; give more of it"),
    "folder": (["show", "{run}/nothing", "--row", "ntp"], "holds no run; start one with"),
    "second folder": (["diff", "{run}", "{run}/nothing"], "holds no run; start one with"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(inside: Inside, small_run: Path, name: str) -> None:
    words, expected = MISTAKES[name]
    done = inside(*(word.format(run=small_run) for word in words))
    assert done.exit_code == 2 and expected in done.stderr and "Traceback" not in done.output
