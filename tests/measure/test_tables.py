import numpy as np
import pandas as pd
from fabricated import COUNTS, ENDS, SEEDS, additive, grid, outcome, recipe, refused, suite, trajectory, with_bits

from ntbench.measure.lines import budgets_table, detectable, heatmap_table, learning_curves, map_table
from ntbench.measure.standing import Study
from ntbench.measure.tables import (
    COLUMNS,
    coverage_table,
    failures_table,
    results_table,
    trajectories_table,
)


def test_one_row_a_cell_with_the_numbers_of_the_horizon() -> None:
    results = list(grid(additive))
    table = results_table(results)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == len(results)
    first = table.set_index("key").loc[results[0].cell.key]
    assert (first.steps, first.budget, first.test) == (80, 80, results[0].trajectory.test[-1])
    assert (first.shown, first.paid, first.t90, first.horizon) == (2560, 80, 10, 8)
    pd.testing.assert_frame_equal(table, results_table(results[::-1]))


def test_one_row_a_budget() -> None:
    results = [r for r in with_bits(additive) if r.status == "ok"]
    table = trajectories_table(results)
    assert len(table) == len(ENDS) * len(results)
    assert set(table.step) == set(ENDS)
    assert (table.correct != "").all()


def test_failures_and_what_does_not_apply() -> None:
    lost = outcome(recipe("ntp", "weak", 10, 0), trajectory([]), status="diverged", error="nan at step 3\ntrace")
    results = [lost, refused(recipe("none", "weak", 10, 0, mask="keep")), *grid(additive, rows=[("sophon", "dense")])]
    failures = failures_table(results)
    assert failures[["defense", "status", "error"]].to_numpy().tolist() == [["ntp", "diverged", "nan at step 3"]]
    coverage = {(r.defense, r["mask"], r.attack): r for _, r in coverage_table(results).iterrows()}
    refusal, failure = coverage["none", "keep", "weak"], coverage["ntp", "dense", "weak"]
    assert (refusal.runs, refusal.not_applicable, refusal.reason) == (0, 1, "it cannot")
    assert (failure.runs, failure.failed) == (1, 1)
    assert coverage["sophon", "dense", "weak"].runs == 15


def test_learning_curves_of_every_attacker() -> None:
    table = learning_curves(grid(additive), suite())
    assert len(table) == 5 * len(COUNTS) * len(SEEDS)
    sophon = table[(table.defense == "sophon") & (table.samples == 100)]
    assert np.allclose(sophon.worst, sophon.baseline - 0.1 + 0.01 * (sophon.seed - 2))
    assert (sophon.rational == sophon.baseline).all()
    assert np.allclose(sophon.paper, 0.25 + 0.01 * (sophon.seed - 2))
    assert np.allclose(sophon.paper_scratch, 0.35)


def test_uplift_over_budgets_in_units_of_t90() -> None:
    table = budgets_table(grid(additive), suite())
    none = table[table.defense == "none"]
    assert np.allclose(none.budget, [0.1, 0.2, 0.5, 1, 2, 4, 8])
    assert np.allclose(none.uplift, [0, 0, 0, 0, 0, 0.2, 0.2])
    assert np.allclose(none.accuracy - none.baseline, none.uplift)


def test_single_attacks_and_the_map() -> None:
    study = Study(grid(additive), suite())
    table = heatmap_table(study, suite())
    slc = {(r.defense, r["mask"], r.attack, r.attack_mask): r.slc for _, r in table.iterrows()}
    assert np.isclose(slc["none", "dense", "weak", "dense"], 0)
    assert np.isclose(slc["none", "dense", "other", "dense"], 0.1 * np.log(100))
    where = map_table(study, suite())
    assert where[["source", "target"]].drop_duplicates().to_numpy().tolist() == [["a", "b"]]
    ntp = where[(where.defense == "ntp") & (where["mask"] == "dense")]
    assert np.allclose(ntp.leak, 0.5)


def test_the_smallest_leak_that_can_be_told() -> None:
    assert 0 < detectable(with_bits(additive), suite()) < 0.2
    assert np.isnan(detectable(grid(additive, seeds=SEEDS[:3]), suite()))
