"""How well two scores agree: points of fabricated results, and a correlation of known size with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import COUNTS, SEEDS, result, suite
from scipy.stats import kendalltau, spearmanr

from ntbench.measure.agreement import COLUMNS, agreement, agreement_table, at_equal_samples
from ntbench.report.sentences import correlations
from ntbench.report.tables import Tables


def scored(defense: str, attack: str, samples: int, seed: int, **fields: Any) -> Any:
    level = {"scratch": 0.3, "ntp": 0.5, "sophon": 0.6, "none": 0.8}[defense] + 0.05 * COUNTS.index(samples)
    return result(
        defense, attack, samples, seed, level + 0.01 * seed, frechet=np.exp(5 - 4 * level + 0.1 * seed), **fields
    )


def points(score: Any, far: Any) -> pd.DataFrame:
    return pd.DataFrame({"score": np.asarray(score, dtype=float), "frechet": np.exp(np.asarray(far, dtype=float))})


def test_a_point_is_the_mean_over_seeds_of_score_and_log_distance() -> None:
    runs = [scored("ntp", "strong", COUNTS[0], seed) for seed in SEEDS]
    found = agreement_table([*runs, result("ntp", "weak", COUNTS[0], 0, 0.5)])
    assert list(found.columns) == list(COLUMNS) and len(found) == 1
    row = found.iloc[0]
    assert (row.defense, row.attack, row["mask"], row.samples, row.seeds) == (
        "ntp",
        "strong",
        "dense",
        COUNTS[0],
        len(SEEDS),
    )
    assert row.score == pytest.approx(0.5 + 0.01 * np.mean(SEEDS))
    assert row.frechet == pytest.approx(np.exp(5 - 4 * 0.5 + 0.1 * np.mean(SEEDS)))
    assert agreement_table([]).empty and list(agreement_table([]).columns) == list(COLUMNS)


def test_the_correlation_is_scipys_whatever_bends_a_score() -> None:
    generator = np.random.default_rng(0)
    score = generator.random(30)
    far = -score + 0.2 * generator.standard_normal(30)
    found = agreement(points(score, far))
    assert (
        found.point
        == pytest.approx(spearmanr(score, far).statistic)
        == pytest.approx(agreement(points(np.exp(3 * score), far)).point)
    )
    assert np.sign(found.point) == np.sign(kendalltau(score, far).statistic) == -1
    assert -1 < found.low < found.point < found.high < 0


def test_the_interval_covers_the_correlation_of_normal_points() -> None:
    # Of two normal variables with correlation r, Spearman's is 6 / pi asin(r / 2).
    r, generator, held = -0.8, np.random.default_rng(1), 0
    expected = 6 / np.pi * np.arcsin(r / 2)
    for _ in range(400):
        x, y = generator.multivariate_normal([0, 0], [[1, r], [r, 1]], size=40).T
        found = agreement(points(x, y))
        held += found.low <= expected <= found.high
    assert 0.92 < held / 400 < 0.98


def test_a_perfect_order_has_no_width_and_too_little_says_nothing() -> None:
    assert agreement(points(range(9), range(9, 0, -1))) == (-1, -1, -1)
    for few in (points(range(3), range(3)), points([1] * 9, range(9)), points(range(9), [1] * 9)):
        assert np.isnan(agreement(few)).all()


def test_the_tables_of_a_report_have_the_points() -> None:
    runs = [
        scored(defense, attack, samples, seed)
        for defense in ("scratch", "ntp", "sophon", "none")
        for attack in ("strong", "weak")
        for samples in COUNTS
        for seed in SEEDS
    ]
    found = Tables.of(runs, suite()).agreement
    assert len(found) == 4 * 2 * len(COUNTS)
    for samples, part in at_equal_samples(found):
        assert samples in COUNTS and len(part) == 8 and agreement(part).point == pytest.approx(-1)


def test_what_more_samples_do_to_both_scores_is_no_agreement() -> None:
    generator = np.random.default_rng(2)
    rows = [
        points(0.1 * step + 0.01 * generator.random(30), -step + 0.1 * generator.random(30)).assign(samples=n)
        for step, n in enumerate((*COUNTS, 4000))
    ]
    whole = pd.concat([*rows, points(range(3), range(3)).assign(samples=1)])
    assert agreement(pd.concat(rows)).point < -0.9
    found = {samples: agreement(part) for samples, part in at_equal_samples(whole)}
    assert list(found) == [*COUNTS, 4000] and all(low < 0 < high for _, low, high in found.values())
    said = correlations(whole)
    assert (
        said.startswith("with 10 samples Spearman ") and said.endswith("], 30 points") and "with 4,000 samples" in said
    )
    assert correlations(whole[whole["samples"] == 1]) == ""
