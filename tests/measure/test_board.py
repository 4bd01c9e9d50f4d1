"""The leaderboard as a whole: its columns, order and ranks, and its numbers worked out again from the tables."""

import numpy as np
import pandas as pd
import pytest
from fabricated import COUNTS, ENDS, SEEDS, additive, grid, outcome, recipe, row, suite, trajectory, with_bits

from ntbench.measure.board import COLUMNS, leaderboard_table
from ntbench.measure.standing import Study
from ntbench.measure.tables import trajectories_table
from ntbench.types import Protection, Trajectory, Tuning, unpack_bits

WEIGHTS = np.array([0.25, 0.5, 0.25])
"""Of three counts a factor of ten apart: half of each step belongs to either end."""


def test_columns_and_order() -> None:
    table = leaderboard_table(grid(additive), suite())
    assert list(table.columns) == list(COLUMNS)
    assert list(zip(table.defense, table["mask"], strict=True)) == [
        ("scratch", "dense"),
        ("ntp", "keep"),
        ("sophon", "dense"),
        ("ntp", "dense"),
        ("none", "dense"),
    ]
    assert [str(table[c].dtype) for c in ("rank", "rank_low", "rank_high")] == ["Int64"] * 3


def test_who_is_ranked_and_judged() -> None:
    table = leaderboard_table(grid(additive), suite())
    verdicts = {(r.defense, r["mask"]): r.verdict for _, r in table.iterrows()}
    assert verdicts["sophon", "dense"] == "holds"
    assert verdicts["ntp", "dense"] == verdicts["none", "dense"] == "leaks"
    assert verdicts["scratch", "dense"] == verdicts["ntp", "keep"] == ""
    assert table[table.ranked].defense.tolist() == ["sophon", "ntp", "none"]
    assert table[table.ranked]["rank"].tolist() == [1, 2, 3]
    assert row(table, "scratch").baseline
    assert row(table, "none").control


def test_the_numbers_of_a_row() -> None:
    table = leaderboard_table(grid(additive), suite())
    ntp = row(table, "ntp")
    assert (ntp.leak, ntp.uplift, ntp.slc) == pytest.approx((0.5, 0.1, 0.1 * np.log(100)))
    assert (ntp.oracle_leak, ntp.scratch_uplift, ntp.grid_uplift) == pytest.approx((0.5, 0.1, 0.1))
    assert (ntp.attack, ntp.attacks, ntp.takes_baseline) == ("strong", "strong; strong; strong", 0.0)
    assert (ntp.faced, ntp.cells, ntp.failed, ntp.inapplicable) == (6, 90, 0, 0)
    assert (row(table, "sophon").faced, row(table, "sophon").inapplicable) == (3, 3)
    assert (ntp.paper_attack, ntp.paper_mask) == ("weak", "keep")
    assert ntp.paper_slc == pytest.approx(-0.3 * np.log(100))
    assert row(table, "sophon").takes_baseline == 1
    assert row(table, "sophon").attack == "strong"
    assert (ntp.interval, ntp.seeds) == ("95%", 5)
    assert np.isnan(ntp.own_leak)
    assert np.isnan(ntp.search_uplift)
    assert (ntp.needs, ntp.protect_seconds_ratio) == ("source labels", 1.5)


def test_equal_leaks_share_a_place_and_close_ones_an_interval() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (4, 5))
    gains = {"none": 0.2, "scratch": 0.0, "ntp": 0.1, "sophon": 0.1}
    index = {name: i for i, name in enumerate(gains)}

    def score(name: str, attack: str, samples: int, seed: int) -> float:
        return 0.4 + gains[name] + float(noise[index[name], seed]) * (name != "scratch")

    rows = [(name, "dense") for name in gains]
    table = leaderboard_table(grid(score, rows), suite())
    assert {(r.rank_low, r.rank_high) for r in (row(table, "ntp"), row(table, "sophon"))} == {(1, 2)}
    assert (row(table, "none").rank_low, row(table, "none").rank_high) == (3, 3)


def test_few_seeds_have_a_range_and_no_verdict() -> None:
    table = leaderboard_table(grid(additive, seeds=SEEDS[:3]), suite(seeds=SEEDS[:3]))
    ntp = row(table, "ntp")
    assert (ntp.interval, ntp.verdict) == ("range", "open")
    assert ntp.reason == "fewer than five seeds (3); run 2 more"
    assert table.rank_low.isna().all()
    assert (ntp.uplift_low, ntp.uplift_high) == pytest.approx((ntp.uplift - 0.01, ntp.uplift + 0.01))


def test_a_release_that_lost_its_source_has_no_place() -> None:
    results = []
    for r in grid(additive):
        if r.cell.defense.label == "sophon" and r.protection:
            r = r.model_copy(update={"protection": r.protection.model_copy(update={"source_after": 0.9})})
        results.append(r)
    table = leaderboard_table(results, suite())
    assert row(table, "sophon").verdict == "none"
    assert row(table, "sophon").reason.startswith("unusable")
    assert table.defense.tolist()[-1] == "sophon"
    assert table["rank"].isna().tolist()[-1]
    assert row(table, "ntp")["rank"] == 1


def test_a_defense_that_could_release_nothing_says_why_and_stands_last() -> None:
    results = []
    for r in grid(additive):
        if r.cell.defense.label == "sophon":
            lost = Protection(status="unusable", error="source accuracy was 0.90 at best", source_before=0.99)
            r = r.model_copy(update={"status": "unusable", "protection": lost, "trajectory": Trajectory()})
        results.append(r)
    table = leaderboard_table(results, suite())
    found = row(table, "sophon")
    assert (found.verdict, table.defense.tolist()[-1]) == ("none", "sophon")
    assert found.reason.startswith("unusable: source accuracy was 0.90 at best; tune the defense")


def test_a_row_tells_how_its_defense_was_tuned() -> None:
    tuning = Tuning(trials=8, names=("lr",), steps=1234, flops=10**9)
    results = []
    for r in grid(additive):
        if r.cell.defense.label == "ntp":
            spec = r.cell.defense.model_copy(update={"tuning": tuning})
            r = r.model_copy(update={"cell": r.cell.model_copy(update={"defense": spec})})
        results.append(r)
    table = leaderboard_table(results, suite())
    assert row(table, "ntp")[["trials", "tuning_steps", "tuning_flops"]].tolist() == [8, 1234, 10**9]
    assert table.set_index("defense").loc["sophon", ["trials", "tuning_steps", "tuning_flops"]].isna().all()


def test_the_unlabelled_track_has_no_speed_up_and_no_verdict() -> None:
    table = leaderboard_table([r.model_copy(update={"track": "unlabelled"}) for r in grid(additive)], suite())
    assert set(table.track) == {"unlabelled"}
    assert (table.verdict == "").all()
    assert table.speedup.isna().all()
    assert not table.ranked.any()
    assert row(table, "ntp", track="unlabelled").oracle_leak == pytest.approx(0.5)


def test_public_weights_are_the_attackers_alternative() -> None:
    rows = [(name, "dense") for name in ("none", "scratch", "public", "sophon")]
    level = {"none": 0.7, "scratch": 0.4, "public": 0.6, "sophon": 0.5}
    defenses = [{"name": name} for name, _ in rows]
    of = suite(defenses=defenses)
    table = leaderboard_table(grid(lambda name, *_: level[name], rows), of)
    assert row(table, "none").uplift == pytest.approx(0.1)
    assert row(table, "none").scratch_uplift == pytest.approx(0.3)
    assert row(table, "sophon").leak == 0
    assert row(table, "sophon").scratch_uplift == pytest.approx(0.1)
    assert row(table, "public").baseline


def test_own_samples_choose_for_every_row() -> None:
    results = list(grid(additive))
    for r in grid(additive):
        if r.status == "ok":
            fooled = {"weak": 0.9, "strong": 0.1, "other": 0.2}[r.cell.attack.label]
            cell = r.cell.model_copy(update={"knowledge": "own"})
            run = trajectory(r.trajectory.test, own=[0.0] * 6 + [fooled])
            results.append(outcome(cell, run))
    table = leaderboard_table(results, suite(own=True))
    # Whoever trusts them takes the weak attack on every row, scratch included, where the gap is the same.
    assert row(table, "none").own_uplift == pytest.approx(0.2)
    assert row(table, "none").own_leak == pytest.approx(1)
    assert row(table, "ntp").own_leak == pytest.approx(0.5)


def test_a_search_stands_beside_the_grid() -> None:
    rows = [("none", "dense"), ("scratch", "dense")]
    results = list(grid(additive, rows))
    for defense, gain in (("none", 0.3), ("scratch", 0.0)):
        for n in COUNTS:
            for s in SEEDS:
                run = trajectory([0.1] * 6 + [0.4 + gain + 0.05 * np.log10(n / 10)])
                results.append(outcome(recipe(defense, "auto", n, s), run, paid=400))
    of = suite(attacks=[*suite().model_dump()["attacks"], {"name": "auto"}])
    none = row(leaderboard_table(results, of), "none")
    assert (none.grid_steps, none.search_steps) == (3 * ENDS[-1], 400)
    assert none.grid_uplift == pytest.approx(0.2)
    assert none.search_uplift == pytest.approx(0.2)


def by_hand(path: pd.DataFrame, defense: str) -> np.ndarray:
    """Return the rational attacker's gain [count, seed, image] from the table of trajectories alone."""
    path = path[path.defense.isin([defense, "scratch"])]
    found = np.zeros((3, 5, 200))
    for n, count in enumerate(COUNTS):
        for seed in SEEDS:
            others = path[(path.samples == count) & (path.seed != seed)]
            means = others.groupby(["defense", "attack", "step"]).val.mean()
            here = path[(path.samples == count) & (path.seed == seed)].set_index(["defense", "attack", "step"])
            base = means[means.index.get_level_values("defense") == "scratch"]
            bits = [dict(zip(here.index, here.correct, strict=True))[m.idxmax()] for m in (means, base)]
            found[n, seed] = np.subtract(*(unpack_bits(b, 200).astype(float) for b in bits))
    return found


def test_leak_and_uplift_can_be_worked_out_from_the_trajectories() -> None:
    results = [r for r in with_bits(additive) if r.cell.mask == "dense"]
    table, path = leaderboard_table(results, suite()), trajectories_table(results)
    gains = {name: np.tensordot(WEIGHTS, by_hand(path, name), axes=1) for name in ("ntp", "none")}
    assert row(table, "ntp").uplift == pytest.approx(gains["ntp"].mean())
    assert row(table, "ntp").leak == pytest.approx(gains["ntp"].mean() / gains["none"].mean())


def test_a_study_gives_the_same_table() -> None:
    results = list(grid(additive))
    study = Study(results, suite())
    pd.testing.assert_frame_equal(leaderboard_table(study, suite()), leaderboard_table(results[::-1], suite()))


def test_nothing_gives_an_empty_table() -> None:
    assert leaderboard_table([], suite()).empty


def test_a_papers_own_scratch_stands_against_its_own_attack() -> None:
    rows = [{"name": "none"}, {"name": "scratch"}, {"name": "sophon", "paper": {"attack": "weak", "scratch": "strong"}}]
    table = leaderboard_table(list(grid(additive)), suite(defenses=rows))
    sophon, none = row(table, "sophon"), row(table, "none")
    # The gain of sophon is -.1, and scratch is .2 better under the strong attack; none has the suite's one attack.
    assert sophon.paper_slc == pytest.approx(-0.3 * np.log(100)) and none.paper_slc == pytest.approx(0.2 * np.log(100))


def test_clipped_scores_are_counted_where_scores_stand_for_errors() -> None:
    def score(row: str, attack: str, samples: int, seed: int) -> float:
        return {0: 1.0, 1: 0.0}.get(seed, 0.5)

    told = Protection(source_before=0.9, source_after=0.8, natural_before=0.04, natural=0.05)
    found = row(leaderboard_table(grid(score, protection=told), suite()), "ntp")
    assert (found.natural_before, found.natural, found.clipped) == pytest.approx((0.04, 0.05, 2 / len(SEEDS)))
    plain = row(leaderboard_table(grid(score), suite()), "ntp")
    assert np.isnan([plain.natural, plain.clipped]).all()
