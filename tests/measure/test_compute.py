import numpy as np
import pytest
from fabricated import COUNTS, ENDS, SEEDS, additive, grid, outcome, recipe, suite, trajectory

from ntbench.measure.compute import Search, compute_table, listed, shuffled, trials_to_success
from ntbench.measure.factors import factors_table
from ntbench.measure.standing import Standing, Study


def standing(label: str) -> Standing:
    return next(s for s in Study(grid(additive), suite()).standings if s.release.label == label)


def test_a_grid_pays_for_its_trials_in_order() -> None:
    found = listed(standing("none"))
    # Weak ends where scratch ends with strong, give or take a seed.
    assert found.steps.tolist() == [80, 160, 240]
    assert found.uplift == pytest.approx([0, 0.2, 0.2], abs=0.01)
    assert found.last == pytest.approx((0.2, 240))
    assert trials_to_success(found) == 2


def test_orders_are_averaged_and_end_alike() -> None:
    found = shuffled(standing("none"))
    assert found.trials.tolist() == [1, 2, 3]
    assert found.uplift[-1] == pytest.approx(0.2)
    assert 0 < found.uplift[0] < found.uplift[1] < 0.2
    assert (shuffled(standing("none")).uplift == found.uplift).all()


def test_nothing_gained_is_no_success() -> None:
    assert np.isnan(trials_to_success(listed(standing("sophon"))))
    assert np.isnan(trials_to_success(Search(*(np.empty(0),) * 3)))


def test_the_whole_grid_is_the_uplift_of_the_board() -> None:
    for s in Study(grid(additive), suite()).standings:
        assert listed(s).last[0] == pytest.approx(s.uplift.point)


def test_the_table_of_total_compute() -> None:
    table = compute_table(grid(additive), suite())
    assert set(table.how) == {"listed", "shuffled"}
    assert len(table[(table.defense == "ntp") & (table["mask"] == "dense") & (table.how == "listed")]) == 6


def test_factors_one_by_one_with_the_others_at_their_best() -> None:
    levels = {("adam", 0.01): 0.3, ("adam", 0.1): 0.5, ("momentum", 0.01): 0.45, ("momentum", 0.1): 0.2}
    results = [
        outcome(
            recipe(d, f"{optimizer} {lr:g}", n, s, params={"optimizer": optimizer, "lr": lr, "name": "x"}),
            trajectory([0.1] * (len(ENDS) - 1) + [level + gain]),
        )
        for d, gain in (("none", 0.2), ("scratch", 0.0))
        for (optimizer, lr), level in levels.items()
        for n in COUNTS
        for s in SEEDS
    ]
    labels = [{"name": "finetune", "label": f"{optimizer} {lr:g}"} for optimizer, lr in levels]
    of = suite(
        attacks=labels,
        paper={"attack": labels[0]["label"]},
        default="",
        defenses=[{"name": "none"}, {"name": "scratch"}],
    )
    table = factors_table(results, of)
    assert set(table.factor) == {"optimizer", "rate"}
    none = table[table.defense == "none"].set_index(["factor", "value"])
    assert none.accuracy.to_dict() == pytest.approx(
        {("optimizer", "adam"): 0.7, ("optimizer", "momentum"): 0.65, ("rate", "0.01"): 0.65, ("rate", "0.1"): 0.7}
    )
    assert none.leak.to_dict() == pytest.approx(
        {("optimizer", "adam"): 1, ("optimizer", "momentum"): 0.75, ("rate", "0.01"): 0.75, ("rate", "0.1"): 1}
    )
