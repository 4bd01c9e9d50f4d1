from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import CURVE_COLUMNS, PATH_COLUMNS, SAMPLES
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from ntbench.report.panels import BETTER, WORSE, colours, envelopes, learning_curves_figure, overhead_figure


def board(*names: str) -> pd.DataFrame:
    rows = [{"defense": n.removesuffix("/keep"), "mask": "keep" if n.endswith("/keep") else "dense"} for n in names]
    frame = pd.DataFrame(rows).assign(slc=-0.4, overhead_steps_90=4.8, overhead_steps_90_censored=1.0)
    return frame.assign(control=frame["defense"].isin(["none", "scratch", "magnitude"]))


def curves(names: pd.DataFrame, worst: tuple[float, ...] = (0.1, 0.3, 0.5)) -> pd.DataFrame:
    rows = [
        (row.defense, row.mask, n, seed, a + 0.02 * seed, 0.1, b)
        for row in names.itertuples()
        for n, a, b in zip(SAMPLES.values(), worst, (0.2, 0.5, 0.8), strict=True)
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def path(attack: str, val: tuple[float, ...], test: tuple[float, ...], seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    rows = [
        ("a", "dense", attack, ratio, seed, step, split, value)
        for ratio in (0.1, 1.0)
        for seed in seeds
        for split, values in (("val", val), ("test", test))
        for step, value in zip((1, 2), values, strict=True)
    ]
    return pd.DataFrame(rows, columns=PATH_COLUMNS)


def line_data(line: Line2D) -> Any:
    return line.get_data()


def test_one_panel_per_row_without_scratch_shows_the_seed_means() -> None:
    names = board("a", "a/keep", "scratch", "none")
    figure = learning_curves_figure(names, curves(names))
    assert figure is not None
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "a (mask kept)", "none"]
    paper, scratch, worst = figure.axes[0].get_lines()
    np.testing.assert_allclose(line_data(worst)[1], [0.11, 0.31, 0.51])
    np.testing.assert_allclose(line_data(scratch)[1], [0.2, 0.5, 0.8])
    np.testing.assert_allclose(line_data(paper)[1], 0.1)
    np.testing.assert_allclose(line_data(worst)[0], list(SAMPLES.values()))
    assert figure.axes[0].get_xscale() == "log"
    assert any("-0.40" in text.get_text() for text in figure.axes[0].texts)


@pytest.mark.parametrize(("worst", "colour"), [((0.1, 0.3, 0.5), WORSE), ((0.3, 0.6, 0.9), BETTER)])
def test_the_area_has_the_colour_of_its_sign(worst: tuple[float, ...], colour: str) -> None:
    names = board("a")
    figure = learning_curves_figure(names, curves(names, worst))
    assert figure is not None
    areas: list[Any] = [c for c in figure.axes[0].collections if c.get_alpha() == 0.25]
    drawn = [area for area in areas if any(len(path.vertices) for path in area.get_paths())]
    assert [tuple(area.get_facecolor()[0][:3]) for area in drawn] == [to_rgba(colour)[:3]]


def test_rows_without_numbers_get_no_panel() -> None:
    names = board("a", "b")
    frame = curves(names)
    frame.loc[frame["defense"] == "b", "worst"] = np.nan
    figure = learning_curves_figure(names, frame)
    assert figure is not None
    assert len(figure.axes) == 1
    assert learning_curves_figure(names, frame.assign(scratch=np.nan)) is None


def envelope(frame: pd.DataFrame, selection: str) -> tuple[list[str], list[float]]:
    """Return per step the attack that is best until then, and the mean accuracy that it holds."""
    steps = envelopes(frame, selection).groupby("step")
    assert (steps["seed"].nunique() == 2).all()
    return steps["attack"].first().tolist(), steps["accuracy"].mean().tolist()


def test_the_envelope_follows_the_best_attack_on_the_allowed_split_at_the_largest_ratio() -> None:
    early, late = path("early", (0.6, 0.6), (0.5, 0.7)), path("late", (0.2, 0.9), (0.55, 0.6))
    frame = pd.concat([early, late, path("lucky", (1.0, 1.0), (1.0, 1.0), seeds=(0,))])
    frame.loc[frame["ratio"] == 0.1, "value"] = 1.0
    assert envelope(frame, "val") == (["early", "late"], [0.5, 0.6])
    assert envelope(frame, "oracle") == (["late", "early"], [0.55, 0.7])
    assert envelopes(frame.iloc[:0], "val").empty


def test_the_envelope_keeps_the_step_that_the_rule_chooses() -> None:
    frame = path("peak", (0.9, 0.3), (0.6, 0.2))
    assert [envelope(frame, rule)[1] for rule in ("last", "val", "oracle")] == [[0.6, 0.2], [0.6, 0.6], [0.6, 0.6]]


def test_an_attack_that_has_ended_keeps_its_model_beside_longer_ones() -> None:
    short, long = path("short", (0.6, 0.7), (0.6, 0.7)), path("long", (0.1, 0.8), (0.1, 0.8))
    long["step"] *= 4
    # Seed 1 of the short attack stops at once.
    short = short[(short["seed"] == 0) | (short["step"] == 1)]
    frame = pd.concat([short, long])
    assert sorted(envelopes(frame, "last")["step"].unique()) == [1, 2, 4, 8]
    attacks, accuracies = envelope(frame, "last")
    assert attacks == ["short", "short", "short", "long"]
    np.testing.assert_allclose(accuracies, [0.6, 0.65, 0.65, 0.8])


def test_overhead_panels_say_how_long_it_takes() -> None:
    names = board("a", "scratch")
    frame = envelopes(path("x", (0.5, 0.6), (0.5, 0.6)), "val")
    both = pd.concat([frame, frame.assign(defense="scratch", accuracy=0.8)])
    figure = overhead_figure(names, both)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == ["> 4.8x"]
    goal = figure.axes[0].get_lines()[0]
    np.testing.assert_allclose(line_data(goal)[1], 0.72)
    assert overhead_figure(names, frame) is None


def test_defenses_have_colours_of_their_own_whatever_the_order_and_controls_are_grey() -> None:
    names = board("a", "b", "c", "d", "e", "f", "none", "scratch")
    palette = colours(names)
    assert len(set(palette.values())) == 7
    assert palette["none"] == palette["scratch"]
    assert palette == colours(names.iloc[::-1])
