from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from fabricated import COUNTS, SEEDS, additive, grid, outcome, recipe, refused, row, suite, trajectory

from ntbench.measure.board import leaderboard_table
from ntbench.measure.standing import Field, Study
from ntbench.suite import Suite
from ntbench.types import Result, Trajectory


def field(results: Iterable[Result], of: Suite | None = None) -> Field:
    return Study(results, of or suite()).fields[0]


def reasons(results: Iterable[Result], gate: str, of: Suite | None = None) -> list[str]:
    return [f.reason for f in field(results, of).failures if f.gate == gate]


def test_a_sound_board_fails_no_gate() -> None:
    study = Study(grid(additive), suite())
    assert [f for standing in study.standings for f in standing.failures] == []


def bent(last: Sequence[float]) -> list[Result]:
    """Return a sound grid whose strong attack on scratch ends with these scores."""
    results = [r for r in grid(additive) if (r.cell.defense.label, r.cell.attack.label) != ("scratch", "strong")]
    for n in COUNTS:
        for s in SEEDS:
            results.append(outcome(recipe("scratch", "strong", n, s), trajectory([*([0.1] * 5), *last])))
            results.append(refused(recipe("scratch", "strong", n, s, mask="keep")))
    return [r for r in results if not (r.cell.defense.label == "scratch" and r.cell.mask == "keep")] + [
        r for r in grid(additive) if r.cell.defense.label == "scratch" and r.cell.mask == "keep"
    ]


def test_a_baseline_that_still_gains_has_not_converged() -> None:
    assert reasons(bent([0.5, 0.509]), "converged") == []
    found = reasons(bent([0.5, 0.521]), "converged")
    assert found[0] == "the baseline still gained 2.1 points over the second half at 10 samples; raise `horizon` to 16"
    assert len(found) == 3


def test_a_horizon_below_eight_or_unknown() -> None:
    low = [{"samples": n, "t90": 20, "plateau": 0.5} for n in COUNTS]
    none = [{"samples": n} for n in COUNTS]
    for levels, said in ((low, "4.0 T90 at 10 samples are under 8"), (none, "are not measured; measure and freeze")):
        of = suite(tasks=[{"source": "a", "target": "b", "levels": levels}])
        assert said in reasons(grid(additive), "horizon", of)[0]


def test_a_release_that_adds_nothing_does_not_transfer() -> None:
    found = reasons(grid(lambda row, attack, *_: 0.5), "transfers")
    assert "there is nothing to protect" in found[0]
    alone = [r for r in grid(additive) if r.cell.defense.label != "none"]
    assert "run `none` and `scratch`" in reasons(alone, "transfers")[0]


def as_file(found: Result, sha256: str = "f" * 64) -> Result:
    """Return a result of a release that came as a file."""
    defense = found.cell.defense.model_copy(update={"name": "file", "params": {"sha256": sha256}})
    return found.model_copy(update={"cell": found.cell.model_copy(update={"defense": defense})})


def test_files_without_undefended_weights_are_told_as_such() -> None:
    alone = [r for r in grid(additive) if r.cell.defense.label != "none"]
    given = [as_file(r) if r.cell.defense.label == "sophon" else r for r in alone]
    missing = "no undefended weights are given, so that there is neither leak nor verdict; name them as `undefended`"
    assert reasons(given, "transfers") == [missing]
    assert (
        "nothing to protect" not in missing
        and reasons([*given, *grid(additive, [("none", "dense")])], "transfers") == []
    )


@pytest.mark.parametrize(
    ("files", "said"), [(1, "95% over attack seeds alone"), (len(SEEDS), "95%")], ids=["one file", "one a seed"]
)
def test_seeds_of_one_file_are_those_of_attacks_alone(files: int, said: str) -> None:
    results = [
        as_file(r, f"{r.cell.seed % files:064d}") if r.cell.defense.label == "sophon" else r for r in grid(additive)
    ]
    board = leaderboard_table(results, suite())
    assert row(board, "sophon")["interval"] == said
    assert {row(board, other)["interval"] for other in ("none", "scratch", "ntp")} == {"95%"}


def rates(best: float, values: Sequence[float] = (0.001, 0.01, 0.1)) -> tuple[list[Result], Suite]:
    """Return a grid of one family of rates, whose best is one of them."""
    labels = {f"adam {lr:g}": lr for lr in values}
    attacks: list[dict[str, Any]] = [{"name": "finetune", "label": label} for label in labels]
    results = [
        outcome(
            recipe(defense, label, n, s, params={"name": "x", "lr": lr}),
            trajectory([0.1] * 5 + [0.4 + gain + 0.1 * (lr == best) + 0.001 * s] * 2),
        )
        for defense, gain in (("none", 0.2), ("scratch", 0.0), ("sophon", 0.1))
        for label, lr in labels.items()
        for n in COUNTS
        for s in SEEDS
    ]
    rows = [{"name": name} for name in ("none", "scratch", "sophon")]
    return results, suite(attacks=attacks, defenses=rows, paper={"attack": next(iter(labels))}, default="")


def test_no_winner_stands_at_the_edge_of_its_rates() -> None:
    results, of = rates(0.01)
    assert reasons(results, "inside", of) == []
    results, of = rates(0.1)
    found = reasons(results, "inside", of)
    said = "'adam 0.1' wins on scratch at 10, 100, 1000 samples with the highest rate of its family, 0.1"
    assert found[0] == f"{said}; add a higher one"
    assert len(found) == 2
    results, of = rates(0.001)
    assert "add a lower one" in reasons(results, "inside", of)[0]


def test_two_rates_have_no_inside() -> None:
    results, of = rates(0.1, (0.01, 0.1))
    assert reasons(results, "inside", of) == []


def test_what_fails_on_one_row_does_not_touch_another() -> None:
    results = [r for r in grid(additive) if (r.cell.defense.label, r.cell.seed) != ("sophon", 2)]
    study = Study(results, suite())
    found = {s.release.label: [f.reason for f in s.failures] for s in study.standings if s.row.mask == "dense"}
    assert found["ntp"] == []
    assert found["sophon"] == ["sophon: 9 runs are missing and 0 failed, first of 'weak'; run them again"]


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_a_release_that_lost_the_source_has_no_cells_to_run_again(seeds: Sequence[int]) -> None:
    def lost(result: Result) -> bool:
        return result.cell.defense.label == "sophon" and result.cell.seed in seeds

    results = [outcome(r.cell, Trajectory(), status="unusable") if lost(r) else r for r in grid(additive)]
    assert [f.reason for s in Study(results, suite()).standings for f in s.failures if f.gate == "complete"] == []


def test_an_attack_a_count_or_a_seed_that_did_not_run() -> None:
    less = [r for r in grid(additive) if r.cell.attack.label != "other"]
    assert "scratch: 'other' and 1 others did not run; run the whole suite" in reasons(less, "complete")
    few = [r for r in grid(additive) if r.cell.samples > 10 and r.cell.seed]
    found = reasons(few, "complete")
    assert "nothing ran at 10 samples; run the whole suite" in found
    assert "nothing ran at seed 0; run the whole suite" in found


def failing(status: str, attack: str, seeds: Sequence[int], kept: int) -> list[Result]:
    """Return a grid in which an attack on sophon fails at some seeds and keeps its first scores."""
    found = []
    for r in grid(additive):
        hit = r.cell.defense.label == "sophon" and r.cell.attack.label == attack and r.cell.seed in seeds
        if hit and r.status == "ok":
            run = trajectory(r.trajectory.test[:kept], ends=r.cell.budget.ends[:kept])
            r = r.model_copy(update={"status": status, "trajectory": run, "error": "lost"})
        found.append(r)
    return found


def of_sophon(results: Iterable[Result]) -> list[str]:
    standing = next(s for s in Study(results, suite()).standings if s.release.label == "sophon")
    return [f.reason for f in standing.failures if f.gate == "complete"]


def test_a_third_of_diverged_runs_is_too_much() -> None:
    assert of_sophon(failing("diverged", "weak", SEEDS[:4], 0)) == []
    found = of_sophon(failing("diverged", "weak", SEEDS, 0))
    assert found == ["sophon: 33% of the runs diverged; add attacks with lower rates"]


def test_no_verdict_rests_on_an_attack_that_failed_where_it_was_strong() -> None:
    assert of_sophon(failing("diverged", "strong", SEEDS[:1], 3)) == []
    found = of_sophon(failing("diverged", "strong", SEEDS[:2], 3))
    assert found[0].startswith("'strong' wins on sophon at 10 samples, but a third or more of its runs there failed")
    assert of_sophon(failing("diverged", "strong", SEEDS[:4], 3)) == found, "more failures do not help"


@pytest.mark.parametrize("status", ["error", "timeout"])
@pytest.mark.parametrize("kept", [1, 3])
def test_what_a_run_scored_before_it_failed_does_not_make_it_whole(status: str, kept: int) -> None:
    (said,) = of_sophon(failing(status, "weak", SEEDS, kept))
    assert said == f"sophon: 0 runs are missing and {3 * len(SEEDS)} failed, first of 'weak'; run them again"


def test_errors_are_no_runs() -> None:
    assert of_sophon(failing("error", "weak", SEEDS[:1], 0)) == [
        "sophon: 0 runs are missing and 3 failed, first of 'weak'; run them again"
    ]


@pytest.mark.parametrize("kept", [0, 3])
def test_a_diverged_run_never_helps_the_defender(kept: int) -> None:
    def leak(results: Iterable[Result]) -> float:
        return next(s for s in Study(results, suite()).standings if s.release.label == "sophon").leak.point

    assert leak(failing("diverged", "strong", SEEDS[:1], kept)) >= leak(grid(additive)) - 1e-9
