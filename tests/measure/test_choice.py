"""The rational attacker against a brute-force search of every run and budget."""

import numpy as np
import pytest
from fabricated import BUDGET, COUNTS, SEEDS, outcome, recipe, suite, trajectory

from ntbench.measure.choice import TOLERANCE, alone, choose, final, with_default
from ntbench.measure.collect import collect
from ntbench.measure.costs import CENSORED, Crossings, horizon_costs, plateaus, reach
from ntbench.measure.curves import Curves
from ntbench.measure.tracks import Row, Run, Runs, pool
from ntbench.types import Result


def some(seed: int, seeds: tuple[int, ...] = SEEDS[:3], knowledge: str = "others") -> Curves:
    """Return a small task of random runs, some of which failed early, scored at the horizon alone, or are missing."""
    draw = np.random.default_rng(seed)
    results: list[Result] = []
    for defense in ("none", "scratch"):
        for attack in ("weak", "strong", "other"):
            for samples in COUNTS[:2]:
                for s in seeds:
                    test, val = np.round(draw.random((2, len(BUDGET.ends))), 1)
                    kept = slice(None, int(draw.integers(1, 8)))
                    kept = slice(-1, None) if draw.random() < 0.2 else kept
                    ends = BUDGET.ends[kept]
                    run = trajectory(test[kept], val[kept], ends, own=val[::-1][kept].tolist())
                    if draw.random() > 0.1:
                        cell = recipe(defense, attack, samples, s, knowledge=knowledge)
                        results.append(outcome(cell, run))
    return collect(results, suite())[0]


def by_hand(curves: Curves, runs: tuple[Run, ...], n: int, s: int, last: int, by: str) -> tuple[float, float]:
    """Return the score that is chosen by and the test score of the first of the best."""
    best, reached = -np.inf, np.nan
    for run in runs:
        for end in range(last + 1):
            ends = [e for e in range(end + 1) if np.isfinite(curves.grid.test[(*run, n, s, e)])]
            others = [k for k in range(len(curves.seeds)) if k != s] or [s]
            seen = [curves.grid.val[(*run, n, k, end)] for k in others]
            score = float(np.mean([v for v in seen if np.isfinite(v)] or [np.nan]))
            if by == "oracle":
                score = float(curves.grid.test[(*run, n, s, end)])
            if ends and score > best + TOLERANCE:
                best, reached = score, float(curves.grid.test[(*run, n, s, ends[-1])])
    return best, reached


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("by", ["others", "oracle"])
@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,)])
def test_the_choice_is_that_of_a_search_by_hand(seed: int, by: str, seeds: tuple[int, ...]) -> None:
    curves = some(seed, seeds)
    runs = pool(curves, Row(0), "target").all
    for last in (0, 3, 6):
        found = choose(curves, runs, by, last)  # type: ignore[arg-type]
        for n in range(len(curves.counts)):
            for s in range(len(curves.seeds)):
                assert found.score[n, s] == pytest.approx(by_hand(curves, runs, n, s, last, by)[1], nan_ok=True)
                assert found.end[n, s] <= last


@pytest.mark.parametrize("seed", range(3))
def test_an_attacker_of_one_run_has_what_a_search_by_hand_finds_in_it(seed: int) -> None:
    curves = some(seed)
    runs = pool(curves, Row(0), "target").all
    found = alone(curves, Runs(runs[::-1]))[::-1]
    for k, n, s in np.ndindex(found.shape):
        want = by_hand(curves, runs[k : k + 1], n, s, len(BUDGET.ends) - 1, "others")[1]
        assert found[k, n, s] == pytest.approx(want, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("cost", "quantile"), [("steps", 90), ("seconds", 50)])
def test_the_cheapest_run_is_that_of_a_search_by_hand(seed: int, cost: str, quantile: int) -> None:
    curves, k = some(seed), ("steps", "samples", "flops", "seconds").index(cost)
    runs = pool(curves, Row(0), "target").all
    goal, grid = quantile / 100 * plateaus(curves), curves.grid
    val, test = (reach(scores, grid.cost, goal, curves.end_steps)[k] for scores in (grid.val, grid.test))
    limit = horizon_costs(grid.cost, curves.end_steps)[k]
    found = Crossings(curves).spent(runs, cost, quantile)
    for n, s in np.ndindex(found.cost.shape):
        best, want = np.inf, (np.nan, np.nan)
        for run in runs:
            seen = [(*run, n, other) for other in range(len(curves.seeds)) if other != s]
            logs = [np.log(min(val[at], CENSORED * limit[at])) for at in seen if np.isfinite(limit[at])]
            expected = np.mean(logs) if logs and not np.isnan(test[(*run, n, s)]) else np.inf
            if expected < best - TOLERANCE:
                best, want = expected, (test[(*run, n, s)], limit[(*run, n, s)])
        assert (found.cost[n, s], found.limit[n, s]) == pytest.approx(want, nan_ok=True)


def test_the_goal_of_a_seed_is_not_among_what_it_is_chosen_by() -> None:
    curves = some(1)
    runs = pool(curves, Row(0), "target").all
    before = choose(curves, runs)
    curves.grid.val[:, :, :, 0] = np.where(np.isfinite(curves.grid.val[:, :, :, 0]), 0.99, np.nan)
    assert (choose(curves, runs).run[:, 0] == before.run[:, 0]).all()


def test_equals_go_to_the_row_first_and_the_smaller_budget() -> None:
    results = [
        outcome(recipe(defense, attack, n, s), trajectory([0.5] * 7))
        for defense in ("none", "scratch")
        for attack in ("weak", "strong")
        for n in COUNTS
        for s in SEEDS
    ]
    curves = collect(results, suite())[0]
    found = choose(curves, pool(curves, Row(0), "target").all)
    assert (found.run == 0).all()
    assert (found.end == 0).all()


def test_nothing_to_choose_from_is_nothing() -> None:
    found = choose(some(0), ())
    assert (found.run == -1).all()
    assert np.isnan(found.score).all()
    assert found.place(0, 0) is None


def test_own_samples_choose_and_the_default_fills_in() -> None:
    results = [
        outcome(recipe("none", attack, n, s, knowledge=k), trajectory([0.1] * 6 + [test], own=[own] * 7))
        for n in COUNTS
        for s in SEEDS
        for k in ("others", "own")
        for attack, test, own in (("weak", 0.3, None if n == 10 else 0.2), ("strong", 0.6, None if n == 10 else 0.8))
    ]
    curves = collect(results, suite())[0]
    runs = pool(curves, Row(0), "target").all
    found = choose(curves, runs, "own")
    assert (found.run[0] == -1).all()
    assert (found.run[1:] == 1).all()
    filled = with_default(curves, found, "weak")
    assert (filled.score[0] == 0.3).all()
    assert (filled.run[1:] == 1).all()


def test_a_single_run_counts_at_the_largest_budget_that_it_has() -> None:
    curves = some(2)
    run = pool(curves, Row(0), "target").release[0]
    found = final(curves, run)
    for n in range(2):
        for s in range(3):
            scores = curves.grid.test[(*run, n, s)]
            last = scores[np.isfinite(scores)][-1] if np.isfinite(scores).any() else np.nan
            assert found.score[n, s] == pytest.approx(last, nan_ok=True)
