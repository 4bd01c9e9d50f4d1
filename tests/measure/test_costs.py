"""Overheads of curves whose crossings are known."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fabricated import ATTACKS, RATIOS, SEEDS, STEPS, result, row, scratch_path, suite, trajectory

from ntbench.measure.ranking import leaderboard_table
from ntbench.types import Result, Trajectory


def paths(defense: str, attack: str, seed: int) -> tuple[float, ...]:
    """Return scratch's path, or that of `sophon`, which reaches the same at step 40, at 80 or never."""
    if defense == "scratch":
        return scratch_path(attack)
    if attack != "strong":
        return (0.05,) * 6
    return [(0.1, 0.1, 0.1, 0.5, 0.75, 0.8), (0.1, 0.1, 0.1, 0.5, 0.5, 0.8), (0.1, 0.1, 0.1, 0.5, 0.5, 0.6)][seed]


def timed(defenses: tuple[str, ...] = ("scratch", "sophon"), late: int = 0) -> Iterator[Result]:
    for defense in defenses:
        for attack in ATTACKS:
            for ratio in RATIOS:
                for seed in SEEDS:
                    path = paths(defense, attack, min(seed + late * (defense == "sophon"), 2))
                    path = path if ratio == 1 else tuple(accuracy / 2 for accuracy in path)
                    yield result(defense, attack, ratio, seed, path[-1], path=path)


def test_overheads_in_every_cost() -> None:
    board = leaderboard_table(timed(), suite(paper={"attack": "strong"}))
    found, scratch = row(board, "sophon"), row(board, "scratch")
    for cost in ("steps", "samples", "flops", "seconds"):
        assert found[f"overhead_{cost}_90"] == 8
        assert found[f"overhead_{cost}_90_censored"] == pytest.approx(1 / 3)
        assert found[f"overhead_{cost}_90_restricted"] == pytest.approx((4 + 8 + 8) / 3)
        assert [scratch[f"overhead_{cost}_{q}"] for q in (50, 80, 90, 95)] == [1, 1, 1, 1]
    assert found.overhead_steps_50 == 4 and found.overhead_steps_95 == 4
    assert found.paper_overhead == 8 and found.paper_overhead_censored == pytest.approx(1 / 3)


def test_censored_overheads_are_lower_bounds() -> None:
    found = row(leaderboard_table(timed(late=1), suite(paper={"attack": "strong"})), "sophon")
    assert found.overhead_steps_90 == 8 and found.overhead_steps_90_censored == pytest.approx(2 / 3)
    assert found.overhead_steps_95 == 4 and found.overhead_steps_95_restricted == 4


def test_the_paper_overhead_is_measured_against_matched_scratch() -> None:
    # Under the weak attack scratch stays at 0.1 and passes 0.9 * 0.1 at step 0, which counts as its first step, 5.
    board = leaderboard_table(timed(), suite())
    found = row(board, "sophon")
    assert (found.paper_overhead, found.paper_overhead_censored, found.overhead_steps_90) == (80 / 5, 1, 8)
    assert row(board, "scratch").paper_overhead == 1


def replaced(path: Callable[[int], tuple[float, ...]], attack: str, **fields: Any) -> Iterator[Result]:
    """Yield `timed` with other curves of `sophon` under one attack, by seed; no curve leaves its cell out."""
    for r in timed():
        _, defense, label, _, ratio, seed = r.cell.coordinates
        if (defense, label) != ("sophon", attack):
            yield r
        elif curve := path(seed):
            yield result(defense, label, ratio, seed, curve[-1], path=curve, **fields)


def test_an_attack_that_lacks_a_seed_is_not_the_cheapest() -> None:
    cells = replaced(lambda seed: (0.8,) * 6 if seed else (), "other")
    assert row(leaderboard_table(cells, suite()), "sophon").overhead_steps_90 == 8


def test_the_cheapest_attack_has_the_lowest_median() -> None:
    # Once at step 5 and twice never is 55 steps in the restricted mean, less than `strong` takes; its median is not.
    cells = replaced(lambda seed: (0.1, 0.6, 0.6, 0.6, 0.6, 0.6) if seed else (0.1, *(0.8,) * 5), "other")
    found = row(leaderboard_table(cells, suite()), "sophon")
    assert (found.overhead_steps_90, found.overhead_steps_90_censored) == (8, pytest.approx(1 / 3))


def test_a_run_that_stops_early_is_censored_where_it_stops() -> None:
    def cells() -> Iterator[Result]:
        for r in timed():
            columns = {name: column[:5] for name, column in r.trajectory}
            early = r.cell.defense.label == "sophon"
            yield r.model_copy(update={"trajectory": Trajectory(**columns)}) if early else r

    found = row(leaderboard_table(cells(), suite(paper={"attack": "strong"})), "sophon")
    assert (found.paper_overhead, found.paper_overhead_censored) == (4, pytest.approx(2 / 3))


def test_the_cheapest_attack_is_chosen_on_validation_data() -> None:
    cells = list(replaced(lambda seed: (0.1, *(0.8,) * 5), "other", val=0.0))
    for rule, value in (("last", 8), ("val", 8), ("oracle", 0.5)):
        assert row(leaderboard_table(cells, suite(), rule), "sophon").overhead_steps_90 == value


def test_an_attacker_judges_by_the_validation_accuracy_of_scratch() -> None:
    def cells() -> Iterator[Result]:
        for ratio in RATIOS:
            for seed in SEEDS:
                for name in ATTACKS:
                    path = scratch_path(name)
                    yield result("scratch", name, ratio, seed, path[-1], path=path, val=path[-1] + 0.2)
                # Early, with an accuracy that is enough on test data alone, and late.
                yield result("sophon", "weak", ratio, seed, 0.6, path=(0.1, *(0.6,) * 5), val=0.8)
                yield result("sophon", "strong", ratio, seed, 0.8, path=(0.1, 0.1, 0.1, *(0.8,) * 3), val=1.0)

    assert row(leaderboard_table(cells(), suite()), "sophon").overhead_steps_90 == 2


def test_the_goal_is_a_share_of_what_scratch_holds_under_the_rule() -> None:
    # Scratch peaks at 0.9 and ends at 0.5; the defense gets to 0.5 at step 5 and to 0.9 at step 40.
    curves = {"scratch": (0.1, 0.5, 0.9, 0.5, 0.5, 0.5), "sophon": (0.1, 0.5, 0.5, 0.5, 0.9, 0.9)}
    cells = [
        result(defense, "weak", ratio, seed, path[-1], path=path)
        for defense, path in curves.items()
        for ratio in RATIOS
        for seed in SEEDS
    ]
    for rule, value in (("last", 1), ("val", 4), ("oracle", 4)):
        found = row(leaderboard_table(cells, suite(), rule), "sophon")
        assert (found.overhead_steps_90, found.paper_overhead) == (value, 1)


def test_a_longer_search_is_compared_in_what_it_spent() -> None:
    def cells() -> Iterator[Result]:
        yield from timed()
        for ratio in RATIOS:
            for seed in SEEDS:
                run = trajectory((0.1, 0.1, 0.8, 0.8, 0.8, 0.8), steps=tuple(4 * step for step in STEPS))
                yield result("sophon", "auto", ratio, seed, 0.8, trajectory=run)

    found = row(leaderboard_table(cells(), suite()), "sophon")
    # `strong` takes 40 steps, 80, and never; the search always 40, over the 10 of scratch.
    assert (found.overhead_steps_90, found.overhead_steps_90_censored, found.overhead_samples_90) == (4, 0, 4)
