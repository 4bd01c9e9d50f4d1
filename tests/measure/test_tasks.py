"""Across tasks: sums, middles and profiles, and how often their ends cover."""

import numpy as np
import pytest
from fabricated import COUNTS, additive, grid, suite
from scipy.stats import trim_mean

from ntbench.measure.areas import Array
from ntbench.measure.intervals import moments
from ntbench.measure.tasks import Pair, interquartile_mean, mean_over_tasks, profiles_table, summed_ratio, tasks_table
from ntbench.types import Level, Task

LEVELS = tuple(Level(samples=n, t90=10, plateau=0.5) for n in COUNTS)
TASKS = tuple(Task(source=s, target="b", levels=LEVELS) for s in ("a", "c", "d"))


def noisy(means: list[float], seed: int, seeds: int = 5) -> list[Array]:
    draw = np.random.default_rng(seed).standard_normal
    return [m + 0.02 * draw((seeds, 1)) + 0.1 * draw((1, 40)) + 0.1 * draw((seeds, 40)) for m in means]


def test_one_task_is_itself() -> None:
    row, none = noisy([0.1], 0)[0], noisy([0.2], 1)[0]
    assert summed_ratio([Pair(row, none)]) == pytest.approx(moments(np.stack([row, none])).ratio([1, 0], [0, 1]))


def test_a_leak_over_tasks_is_the_ratio_of_sums() -> None:
    rows, nones = noisy([0.0, 0.3], 2), noisy([0.1, 0.5], 3)
    found = summed_ratio([Pair(*pair) for pair in zip(rows, nones, strict=True)])
    assert found.point == pytest.approx(sum(r.mean() for r in rows) / sum(n.mean() for n in nones))
    assert found.low < found.point < found.high


def test_means_over_tasks_and_their_middle() -> None:
    tasks = noisy([0.0, 0.1, 0.2, 0.3], 4)
    assert mean_over_tasks(tasks).point == pytest.approx(np.mean([t.mean() for t in tasks]))
    values = np.concatenate([t.mean(axis=1) for t in tasks])
    assert interquartile_mean(tasks).point == pytest.approx(trim_mean(values, 0.25))


def test_under_five_seeds_the_range_stands() -> None:
    tasks = noisy([0.0, 0.1], 5, seeds=3)
    means = np.mean([t.mean(axis=1) for t in tasks], axis=0)
    assert mean_over_tasks(tasks)[1:] == pytest.approx((means.min(), means.max()))
    found = interquartile_mean(tasks)
    assert found.low <= found.point <= found.high


def test_the_ends_cover() -> None:
    truth = 0.15
    means, middles, ratios = [], [], []
    for k in range(300):
        rows, nones = noisy([0.0, 0.1, 0.2, 0.3], 100 + k), noisy([0.3] * 4, 1000 + k)
        means.append(mean_over_tasks(rows))
        middles.append(interquartile_mean(rows, draws=300))
        ratios.append(summed_ratio([Pair(*pair) for pair in zip(rows, nones, strict=True)]))
    for name, found, true in (("mean", means, truth), ("middle", middles, truth), ("leak", ratios, 0.5)):
        covered = np.mean([i.low <= true <= i.high for i in found])
        print(f"{name} over four tasks: {covered:.3f}")
        assert 0.92 <= covered <= 0.98


def test_the_tables() -> None:
    results = [r for task in TASKS for r in grid(additive, task=task)]
    of = suite(tasks=[t.model_dump() for t in TASKS])
    table = tasks_table(results, of)
    assert (table.tasks == 3).all()
    line = table[(table.defense == "ntp") & (table["mask"] == "dense")]
    assert line[["leak", "uplift", "iqm"]].to_numpy()[0] == pytest.approx([0.5, 0.1, 0.1])
    profile = profiles_table(results, of)
    ntp = profile[(profile.defense == "ntp") & (profile["mask"] == "dense")]
    assert ntp.share.is_monotonic_decreasing
    assert ntp[ntp.uplift < 0.05].share.eq(1).all()
    assert ntp[ntp.uplift > 0.15].share.eq(0).all()
