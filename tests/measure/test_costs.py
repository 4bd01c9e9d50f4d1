import numpy as np
import pytest
from fabricated import COUNTS, ENDS, SEEDS, grid, outcome, recipe, suite, trajectory
from scipy.stats import CensoredData, ecdf

from ntbench.measure.areas import Array
from ntbench.measure.costs import Spent, cautious, compare, horizon_costs, reach, survival_median
from ntbench.measure.standing import Standing, Study

STEPS = np.array([[10.0, 20, 40, 80]])


def reached(scores: list[float], goal: float, steps: Array = STEPS) -> float:
    cost = np.broadcast_to(steps[None, :, None], (1, 1, 1, steps.shape[1]))
    return float(reach(np.array(scores)[None, None], cost, [goal], steps)[0, 0, 0])


def test_a_crossing_is_interpolated_in_the_log_of_steps() -> None:
    assert reached([0.0, 0.2, 0.6, 0.8], 0.4) == pytest.approx(20 * 2**0.5)
    assert reached([0.0, 0.2, 0.6, 0.8], 0.6) == pytest.approx(40)
    assert reached([0.0, 0.2, 0.6, 0.8], 0.3) == pytest.approx(20 * 2**0.25)


def test_the_first_end_above_counts_as_it_is() -> None:
    assert reached([0.5, 0.6, 0.7, 0.8], 0.4) == 10


def test_a_goal_that_is_missed_is_infinite_and_without_run_or_goal_unknown() -> None:
    assert reached([0.1, 0.2, 0.3, 0.4], 0.5) == np.inf
    assert np.isnan(reached([np.nan] * 4, 0.5))
    assert np.isnan(reached([0.5] * 4, np.nan))


def test_a_run_at_the_horizon_alone_pays_the_horizon() -> None:
    assert reached([np.nan, np.nan, np.nan, 0.9], 0.5) == 80


def test_nothing_is_interpolated_beyond_a_factor_of_two() -> None:
    assert reached([0.0, 0.8], 0.4, np.array([[10.0, 40.0]])) == 40
    assert reached([0.0, 0.8], 0.4, np.array([[2.0, 5.0]])) == pytest.approx(10**0.5)


def test_a_later_fall_changes_nothing() -> None:
    assert reached([0.0, 0.8, 0.1, 0.9], 0.4) == pytest.approx(10 * 2**0.5)


def test_a_run_that_ended_early_is_cut_off_at_the_horizon() -> None:
    cost = np.array([[10.0, 20, np.nan, np.nan], [1.0, 2.0, np.nan, np.nan]])[:, None, None]
    assert horizon_costs(cost, STEPS).ravel() == pytest.approx([80, 8])


def test_the_median_is_that_of_kaplan_and_meier() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        limits, true = draw.integers(1, 9, 6).astype(float), draw.integers(1, 9, 6).astype(float)
        cost = np.where(true <= limits, true, np.inf)
        got = np.isfinite(cost)
        if not got.any():
            continue
        curve = ecdf(CensoredData(uncensored=cost[got], right=limits[~got])).sf
        jumps = [q for q, p in zip(curve.quantiles, curve.probabilities, strict=True) if p <= 0.5 and q in cost]
        assert survival_median(cost, limits) == (jumps[0] if jumps else np.inf)


@pytest.mark.parametrize(("cost", "median"), [([3, 1, 2], 2), ([1, np.inf, np.inf], np.inf), ([1, 2, np.inf], 2)])
def test_medians_of_few(cost: list[float], median: float) -> None:
    assert survival_median(cost, np.full(len(cost), 9.0)) == median


def test_ratios_are_geometric_means_over_the_counts_at_which_somebody_gets_there() -> None:
    base = Spent(np.array([[10.0] * 5, [40.0] * 5, [np.inf] * 5]), np.full((3, 5), 80.0))
    ours = Spent(np.array([[5.0] * 5, [40.0] * 5, [1.0] * 5]), np.full((3, 5), 80.0))
    found = compare(base, ours, base, COUNTS)
    assert found.counts == COUNTS
    # Where the baseline never got there its ratio is at least that of its horizon.
    assert found.interval.point == pytest.approx((2 * 1 * 80) ** (1 / 3)) and found.interval.high == np.inf
    assert found.bound == ">"
    other = compare(ours, base, base, COUNTS)
    assert other.counts == COUNTS[:2] and other.interval.point == pytest.approx(2**-0.5)
    nobody = Spent(np.where(np.isinf(base.cost), np.inf, ours.cost), base.limit)
    assert compare(base, nobody, base, COUNTS).counts == COUNTS[:2]


def test_a_cut_off_median_makes_a_bound() -> None:
    base = Spent(np.full((1, 5), 10.0), np.full((1, 5), 80.0))
    ours = Spent(np.array([[np.inf, np.inf, np.inf, 20, 40]]), np.full((1, 5), 80.0))
    found = compare(ours, base, base, [10])
    assert found.bound == ">" and compare(base, ours, base, [10]).bound == "<"
    both = compare(ours, ours, base, [10])
    assert both.bound == "" and np.isnan(both.interval.high)
    assert found.interval.point == pytest.approx(8)


def test_who_took_the_baseline_might_have_taken_the_release() -> None:
    limit = np.full((2, 5), 80.0)
    base = Spent(np.array([[10.0, 11, 9, 10, 10], [40.0] * 5]), limit)
    alone = Spent(np.array([[4.0, 20, 6, 16, 12], [40.0, 90, 90, 90, 90]]), limit)
    plain = compare(base, base, base, COUNTS[:2])
    assert plain.interval == (1, 1, 1)
    found = cautious(plain, base, alone, base, COUNTS[:2])
    mixed = Spent(np.stack([alone.cost[0], base.cost[1]]), limit)
    assert found.interval == (1, 1, compare(base, mixed, base, COUNTS[:2]).interval.high)
    assert found.interval.high > 1.2
    # Nothing is known of four seeds, and nothing changes where the release was taken.
    few = [Spent(side.cost[:, :4], side.limit[:, :4]) for side in (base, alone)]
    assert cautious(plain, few[0], few[1], few[0], COUNTS[:2]) == plain
    taken = compare(base, alone, base, COUNTS[:2])
    assert cautious(taken, alone, alone, base, COUNTS[:2]).interval.low == taken.interval.low


def standing(delay: float, defense: str = "none") -> Standing:
    """Return a release that learns as scratch does, some times slower or faster."""

    def path(speed: float) -> list[float]:
        return [float(np.clip(0.2 * np.log2(end / 2 * speed), 0, 0.8)) for end in ENDS]

    results = [
        outcome(recipe(label, "strong", n, s), trajectory(path(speed)))
        for label, speed in (("none", 1 / delay), ("scratch", 1.0))
        for n in COUNTS
        for s in SEEDS
    ]
    levels = [{"samples": n, "t90": 10, "plateau": 0.8} for n in COUNTS]
    study = Study(results, suite(tasks=[{"source": "a", "target": "b", "levels": levels}]))
    return next(s for s in study.standings if s.release.label == defense)


def test_the_release_alone_is_slower_and_the_attacker_never_is() -> None:
    slow = standing(2.0)
    assert slow.overhead("steps", 50).interval.point == pytest.approx(2)
    assert slow.speedup("steps", 50).interval.point == pytest.approx(1)
    fast = standing(0.5)
    for cost in ("steps", "samples", "flops", "seconds"):
        assert fast.speedup(cost, 50).interval.point == pytest.approx(2)
    assert fast.speedup("steps", 90).interval == pytest.approx((2, 2, 2))


def test_scratch_against_itself_is_one() -> None:
    own = standing(2.0, "scratch")
    assert own.speedup().interval.point == own.overhead().interval.point == 1


def test_without_a_plateau_there_is_no_speed_up() -> None:
    levels = [{"samples": n, "t90": 10} for n in COUNTS]
    results = grid(lambda *_: 0.5, rows=(("none", "dense"), ("scratch", "dense")))
    study = Study(results, suite(tasks=[{"source": "a", "target": "b", "levels": levels}]))
    assert all(np.isnan(s.speedup().interval.point) for s in study.standings)
