"""One published cell computed again: it matches, or what differs is told, and only a match is marked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ntbench.leaderboard.publish import publish
from ntbench.leaderboard.rebuilt import results_of
from ntbench.leaderboard.schema import Published, read
from ntbench.leaderboard.validate import validate
from ntbench.leaderboard.verify import verify
from small_board import loaded, small_results

from ntbench import __version__
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.errors import UserError
from ntbench.suite import Suite
from ntbench.types import Cell, Result, Trajectory

HELD = {r.cell.coordinates: r for r in small_results()}


def honest(cell: Cell) -> Result:
    """Return what a run of the small board gave, whatever the code of the methods is by now."""
    return HELD[cell.coordinates].model_copy(update={"cell": cell})


def altered(**columns: Any) -> Callable[[Cell], Result]:
    def run(cell: Cell) -> Result:
        found = honest(cell)
        return found.model_copy(update={"trajectory": found.trajectory.model_copy(update=columns)})

    return run


def key_of(folder: Path, place: int = 0) -> str:
    """Return the key of a cell of `ntp`."""
    return str(results_of(read(folder / "tiny/ntp/a-b.json", Published))[place].cell.key)


def test_a_cell_that_matches_is_marked_and_the_board_stays_sound(copy: Path) -> None:
    path, keys = copy / "tiny/ntp/a-b.json", [key_of(copy, 3), key_of(copy, 4)]
    for key in keys:
        check = verify(copy, honest, key)
        assert check.matches and check.path == path and check.cell.key == key
        assert "the code of attack 'finetune', 0000000000000000 then" in str(check)
    (mark,) = loaded(copy)["verified"]
    assert (mark["version"], mark["cells"]) == (__version__, sorted(keys))
    assert validate(copy) == []


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (altered(val=(0.5,) * 7), "val at 1 steps, "),
        (altered(test=(0.5,) * 7), "test at 1 steps, "),
        (altered(samples=(1,) * 7), "samples at 1 steps, 32, is 1"),
        (altered(flops=(1,) * 7), "flops at 1 steps, 1e"),
        (altered(correct=("",) * 7), "other test images are right"),
        (altered(**dict.fromkeys(Trajectory.model_fields, ())), "budgets [1, 2, 5, 10, 20, 40, 80] are []"),
        (lambda cell: honest(cell).model_copy(update={"status": "error", "error": "no\nhow"}), r"ok is error (no)"),
    ],
)
def test_what_differs_is_told_and_not_marked(copy: Path, run: Callable[[Cell], Result], said: str) -> None:
    check = verify(copy / "tiny/ntp/a-b.json", run, key_of(copy))
    assert not check.matches
    assert any(said in line for line in check.differences), check.differences
    assert loaded(copy)["verified"] == []


@pytest.mark.parametrize("change", [{"source_after": 0.5}, {"kept": ""}, {"sparsity": 0.1}, {"frechets": (1.0,)}])
def test_another_release_differs(copy: Path, change: dict[str, Any]) -> None:
    def run(cell: Cell) -> Result:
        found = honest(cell)
        assert found.protection
        return found.model_copy(update={"protection": found.protection.model_copy(update=change)})

    (said,) = verify(copy, run, key_of(copy)).differences
    assert said.startswith(next(iter(change)))


def test_other_seconds_are_no_difference(copy: Path) -> None:
    assert verify(copy, altered(seconds=(9.0,) * 7), key_of(copy)).matches


def test_a_drawn_cell_is_a_finished_one_and_the_same_for_a_seed(copy: Path) -> None:
    drawn = [verify(copy, honest, seed=seed).cell for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({cell.key for cell in drawn}) > 1
    assert all(HELD[cell.coordinates].status == "ok" for cell in drawn)


def test_mistakes_are_told(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        verify(tmp_path / "nowhere", honest)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no published rows"):
        verify(tmp_path / "empty", honest)
    with pytest.raises(UserError, match="unknown published cell 'abc'"):
        verify(copy, honest, "abc")


def test_a_forged_run_is_found_by_the_engine(tmp_path: Path, runner: Runner) -> None:
    levels = [{"samples": n, "t90": 1.0, "plateau": 0.5} for n in (20, 40)]
    values: dict[str, Any] = {"name": "tiny", "version": 1, "summary": "four cells", "seeds": [0], "horizon": 2}
    values |= {"arch": {"name": "cnns_bn"}, "pretrain": {"steps": 3}, "paper": {"attack": "finetune"}}
    values |= {"tasks": [{"source": "digits", "target": "digits_m", "image_size": 8, "levels": levels}]}
    values |= {"defenses": [{"name": "none"}, {"name": "scratch"}], "attacks": [{"name": "finetune"}]}
    suite = Suite.model_validate(values)
    folder, cells = tmp_path / "board", plan(suite)
    publish([runner.run(cell) for cell in cells], suite, folder)
    assert validate(folder) == []
    assert verify(folder, runner.run, cells[0].key).matches
    forged = [runner.run(cell) for cell in cells]
    forged[0] = forged[0].model_copy(
        update={"trajectory": forged[0].trajectory.model_copy(update={"val": (0.0,) * len(forged[0].trajectory.step)})}
    )
    publish(forged, suite, folder)
    assert validate(folder) == [], "who also makes every hash and row anew is not found by arithmetic"
    assert "val at" in str(verify(folder, runner.run, cells[0].key))
