from collections.abc import Iterator

from fabricated import COUNTS, SEEDS, additive, grid, outcome, recipe, suite, trajectory

from ntbench.measure.collect import collect
from ntbench.measure.curves import Curves
from ntbench.measure.tracks import Pool, Row, Run, pool, rows_of, tracks_of, twin_pool
from ntbench.types import Result

ACCESS = {
    "plain": "target",
    "merge": "source",
    "fixmatch": "semi-supervised",
    "tent": "unlabelled",
    "distill": "queries",
}


def tracked(masked: bool = False) -> Iterator[Result]:
    for defense in ("public", "none", "scratch", "ntp"):
        for attack, track in ACCESS.items():
            for n in COUNTS:
                for s in SEEDS[:2]:
                    yield outcome(recipe(defense, attack, n, s), trajectory([0.5]), track=track)
    for n in COUNTS if masked else ():
        yield outcome(recipe("ntp", "plain", n, 0, mask="keep"), trajectory([0.5]))


def named(curves: Curves, runs: tuple[Run, ...]) -> list[tuple[str, str]]:
    attacks = [(curves.attacks[a].label, curves.attacks[a].mask) for _, a in runs]
    return [(curves.releases[r].label, f"{a} {m}") for (r, _), (a, m) in zip(runs, attacks, strict=True)]


def pools(curves: Curves, label: str, track: str, mask: str = "dense") -> Pool:
    row = next(i for i, r in enumerate(curves.releases) if r.label == label)
    return pool(curves, Row(row, mask), track)  # type: ignore[arg-type]


def test_every_track_has_its_own_attacks_and_baseline() -> None:
    curves = collect(tracked(), suite())[0]
    assert tracks_of(curves) == ["target", "source", "semi-supervised", "unlabelled", "queries"]
    of = {track: named(curves, pools(curves, "ntp", track).release) for track in tracks_of(curves)}
    assert of["target"] == [("ntp", "plain dense")]
    assert sorted(of["source"]) == [("ntp", "merge dense"), ("ntp", "plain dense")]
    assert sorted(of["semi-supervised"]) == [("ntp", "fixmatch dense"), ("ntp", "plain dense")]
    assert of["unlabelled"] == [("ntp", "tent dense")]
    assert of["queries"] == [("ntp", "distill dense")]


def test_the_baselines_are_scratch_and_public_in_this_order() -> None:
    curves = collect(tracked(), suite())[0]
    assert named(curves, pools(curves, "ntp", "target").baseline) == [
        ("scratch", "plain dense"),
        ("public", "plain dense"),
    ]
    assert named(curves, pools(curves, "ntp", "unlabelled").baseline)[0] == ("scratch", "tent dense")


def test_without_the_box_the_same_data_are_trained_on() -> None:
    curves = collect(tracked(), suite())[0]
    names = named(curves, pools(curves, "ntp", "queries").baseline)
    assert {name for _, name in names} == {"plain dense", "merge dense"}
    assert pools(curves, "scratch", "queries").release[0] in pools(curves, "ntp", "queries").baseline


def test_a_kept_row_meets_dense_twins_of_the_baseline_that_has_no_mask() -> None:
    curves = collect(tracked(masked=True), suite())[0]
    rows = [(curves.releases[r.release].label, r.mask) for r in rows_of(curves, "target")]
    assert ("ntp", "keep") in rows
    assert ("none", "keep") not in rows
    kept = pools(curves, "ntp", "target", "keep")
    assert named(curves, kept.release) == [("ntp", "plain keep")]
    assert named(curves, kept.baseline) == [("scratch", "plain dense"), ("public", "plain dense")]
    dense = pools(curves, "ntp", "target")
    assert sorted(named(curves, dense.release)) == [("ntp", "plain dense"), ("ntp", "plain keep")]
    none = curves.named("none")
    assert none is not None
    ntp = next(r for r in rows_of(curves, "target") if r.mask == "keep")
    assert named(curves, twin_pool(curves, none, ntp, "target").release) == [("none", "plain dense")]


def test_the_baseline_faces_the_attacks_of_the_row_alone() -> None:
    results = [r for r in grid(additive) if (r.cell.defense.label, r.cell.attack.label) != ("sophon", "strong")]
    curves = collect(results, suite())[0]
    assert named(curves, pools(curves, "sophon", "target").baseline) == [
        ("scratch", "weak dense"),
        ("scratch", "other dense"),
    ]
