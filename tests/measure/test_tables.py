"""Cells, trajectories, failures, learning curves and the heat map as tables, for numbers known in closed form."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from fabricated import RATIOS, ROWS, SEEDS, SPAN, STEPS, additive, grid, refused, result, suite

from ntbench.measure.ranking import leaderboard_table
from ntbench.measure.tables import (
    COVERAGE,
    TIMING,
    coverage_table,
    failures_table,
    heatmap_table,
    learning_curves,
    results_table,
    trajectories_table,
)
from ntbench.types import Protection, Trajectory


def test_results_are_the_same_bytes_for_any_order() -> None:
    results = list(grid(additive))
    first = results_table(results).to_csv(index=False)
    shuffled = random.Random(0).sample(results, len(results))
    assert results_table(shuffled).to_csv(index=False) == first
    assert trajectories_table(shuffled).to_csv() == trajectories_table(results).to_csv()
    assert leaderboard_table(shuffled, suite()).to_csv() == leaderboard_table(results, suite()).to_csv()
    times = [
        {"pretrain_seconds": 1.0, "protect_seconds": float(k) if k % 27 < 24 else None} for k in range(len(results))
    ]
    timed = [r.model_copy(update={"protection": Protection(**t)}) for r, t in zip(results, times, strict=True)]
    ratios = [leaderboard_table(order, suite()).protect_seconds_ratio.tolist() for order in (timed, timed[::-1])]
    assert ratios[0] == ratios[1] and np.isfinite(ratios[0]).all()
    # Nor may an integer column turn to floats when one cell lacks it.
    results[0] = results[0].model_copy(update={"samples": None})
    assert first.splitlines()[-1] in results_table(results).to_csv(index=False)


def test_one_result_fills_its_columns() -> None:
    cell = result("ntp", "weak", 0.1, 2, 0.25, val=0.35, mask="keep", choice="adam 0.1")
    table = results_table([cell])
    assert tuple(table.columns[-5:]) == TIMING
    values = table.iloc[0].to_dict()
    assert values["test_accuracy"] == 0.25 and values["val_accuracy"] == 0.35
    expected: dict[str, Any] = {
        "protocol": "tiny-1",
        "task": "a-b",
        "arch": "cnn",
        "defense": "ntp",
        "attack": "weak",
        "mask": "keep",
    }
    expected |= {
        "ratio": 0.1,
        "samples": 100,
        "seed": 2,
        "status": "ok",
        "error": "",
        "steps": 80,
        "choice": "adam 0.1",
    }
    expected |= {"train_samples": 2560, "flops": 80_000_000, "source_before": 0.99, "source_after": 0.985}
    expected |= {"zero_shot": 0.1, "sparsity": 0.5, "pretrain_flops": 200, "protect_flops": 700, "version": "0.1"}
    expected |= {"key": cell.cell.key, "seconds": 40.0, "cell_seconds": 1.25, "pretrain_seconds": 4.0}
    expected |= {"protect_seconds": 6.0, "peak_mb": 300.0}
    assert {name: values[name] for name in expected} == expected
    assert set(values) - set(expected) == {"test_accuracy", "val_accuracy", "data"}


def test_a_diverged_cell_has_a_reason_and_no_accuracy() -> None:
    bad = result("ntp", "weak", 0.1, 0, 0.4, status="diverged", error="loss is nan\nat step 3")
    empty = result("ntp", "weak", 1.0, 0, 0.4, status="error", error="E", trajectory=Trajectory(), protection=None)
    values = results_table([bad]).iloc[0]
    assert values["error"] == "loss is nan" and np.isnan(values["test_accuracy"]) and values["steps"] == 80
    failures = failures_table([bad, empty, result("ntp", "weak", 0.01, 0, 0.4)])
    assert failures[["ratio", "status", "error"]].to_numpy().tolist() == [
        [0.1, "diverged", "loss is nan"],
        [1.0, "error", "E"],
    ]


def test_what_is_not_applicable_is_stated_and_did_not_fail() -> None:
    good, other = (result("ntp", name, 0.1, seed, 0.4) for name, seed in (("weak", 0), ("strong", 0)))
    bad = result("ntp", "weak", 1.0, 0, 0.4, status="timeout", error="600 s")
    cells = [bad, good, refused(other, "ntp has no head\nto flip")]
    listed = results_table(cells)[["attack", "status", "error"]].to_numpy().tolist()
    assert listed == [["strong", "inapplicable", "ntp has no head"], ["weak", "ok", ""], ["weak", "timeout", "600 s"]]
    assert failures_table(cells)["status"].tolist() == ["timeout"]
    found = coverage_table(cells)
    assert tuple(found.columns) == COVERAGE
    assert found.to_numpy().tolist() == [
        ["a-b", "ntp", "dense", "strong", 0, 0, 1, "ntp has no head"],
        ["a-b", "ntp", "dense", "weak", 2, 1, 0, ""],
    ]
    assert coverage_table(cells[::-1]).to_csv() == found.to_csv()


def test_trajectories_are_long() -> None:
    table = trajectories_table([result("ntp", "weak", 0.1, 2, 0.25, val=0.35)])
    assert len(table) == 2 * len(STEPS)
    last = table[(table.step == 80) & (table.split == "val")].iloc[0]
    assert (last.value, last.train_samples, last.flops, last.seconds, last.samples_n) == (0.35, 2560, 8e7, 40, 100)


def test_empty_input_gives_the_same_columns() -> None:
    assert list(leaderboard_table([], suite()).columns) == list(leaderboard_table(grid(additive), suite()).columns)
    assert list(results_table([]).columns) == list(results_table([result("none", "weak", 1, 0, 0.5)]).columns)
    assert (
        len(trajectories_table([]))
        == len(failures_table([]))
        == len(coverage_table([]))
        == len(learning_curves([], suite()))
        == 0
    )


def test_learning_curves() -> None:
    table = learning_curves(grid(additive), suite())
    assert len(table) == len(ROWS) * len(RATIOS) * len(SEEDS)
    found = table[(table.defense == "ntp") & (table["mask"] == "dense") & (table.samples == 100) & (table.seed == 2)]
    expected = {"worst": 0.5 + 0.1, "paper": 0.3 - 0.3, "scratch": 0.5 - 0.01, "scratch_matched": 0.3 - 0.01}
    noise = -0.05 + 0.01
    assert found[list(expected)].iloc[0].to_dict() == pytest.approx({k: v + noise for k, v in expected.items()})


def test_curves_follow_the_selection_rule() -> None:
    peaks = (0.1, 0.2, 0.3, 0.9, 0.6, 0.5)
    cells = [result(d, "weak", n, s, 0.5, path=peaks) for d in ("scratch", "none") for n in RATIOS for s in SEEDS]
    for rule, best in (("last", 0.5), ("val", 0.9), ("oracle", 0.9)):
        table = learning_curves(cells, suite(), rule)
        assert (table[["worst", "scratch"]] == best).to_numpy().all()
        assert (table[["paper", "scratch_matched"]] == 0.5).to_numpy().all()
    late = [result("scratch", "weak", n, s, 0.9) for n in RATIOS for s in SEEDS] + cells[len(cells) // 2 :]
    slc = {
        rule: heatmap_table(late, suite(), rule).set_index(["defense", "attack"]).slc["none", "weak"]
        for rule in ("last", "val")
    }
    assert slc == {"last": pytest.approx(-0.4 * SPAN), "val": pytest.approx(0)}


def test_heatmap_compares_every_attack_with_tuned_scratch() -> None:
    absent = [("none", "weak", "dense", ratio, 2) for ratio in RATIOS] + [("none", "other", "dense", 0.01, 2)]
    cells = [r for r in grid(additive) if r.cell.coordinates[1:] not in absent]
    table = heatmap_table(cells, suite()).set_index(["defense", "mask", "attack"]).slc
    assert table["sophon", "dense", "weak"] == pytest.approx((-0.1 - 0.2) * SPAN)
    assert table["scratch", "dense", "strong"] == 0
    assert np.isnan(table["none", "dense", "weak"]) and np.isnan(table["none", "dense", "other"])


def test_tables_import_neither_torch_nor_plots() -> None:
    heavy = "{'torch', 'matplotlib', 'seaborn', 'sklearn'}"
    code = f"import sys, ntbench.measure.tables; sys.exit(str({heavy} & set(sys.modules) or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
