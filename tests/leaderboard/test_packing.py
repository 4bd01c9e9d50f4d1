"""Packed texts come back as they were, and damaged ones are refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from hypothesis.strategies import floats
from ntbench.leaderboard.packing import (
    DAMAGED,
    mean_of,
    packed,
    packed_bits,
    packed_each,
    shares_of,
    stand_in,
    unpacked,
    unpacked_bits,
    unpacked_each,
)
from numpy.typing import NDArray

from ntbench.types import pack_bits, pack_scores, unpack_bits


@pytest.mark.parametrize("value", [[], [[1, 2.5, None]], {"a": ["b", 1e-7, 10**15]}])
def test_values_come_back(value: object) -> None:
    assert unpacked(packed(value)) == value


@pytest.mark.parametrize(("runs", "images"), [(0, 0), (0, 7), (1, 1), (3, 8), (5, 61), (40, 400)])
def test_runs_come_back(runs: int, images: int) -> None:
    draw = np.random.default_rng(runs)
    given = [pack_bits(draw.random(images) < 0.7) for _ in range(runs)]
    assert unpacked_bits(packed_bits(given, images), runs, images) == given


def test_hard_images_cost_little() -> None:
    ease = np.random.default_rng(0).random(400)
    runs = [pack_bits(ease < 0.7 + 0.001 * k) for k in range(100)]
    assert len(packed_bits(runs, 400)) < len("".join(runs)) / 5


@pytest.mark.parametrize("text", ["", "?", "AAAA", packed([1])[:-4]])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(DAMAGED):
        unpacked(text)
    with pytest.raises(DAMAGED):
        unpacked_bits(text, 3, 400)


@pytest.mark.parametrize("right", [0, 1, 59, 60])
def test_a_stand_in_has_the_same_score(right: int) -> None:
    assert unpack_bits(stand_in(right / 60, 60), 60).sum() == right


def test_scores_are_shares_of_the_fewest_images_that_serve() -> None:
    assert shares_of([1 / 197, 50 / 197, 1.0]) == 197
    assert shares_of([0.5, 0.25], images=400) == 400
    assert shares_of([0.5, 1 / 3], images=400) == 6
    assert shares_of([0.1234567891234]) == 0
    assert shares_of([]) == 1


@pytest.mark.parametrize(("runs", "images"), [(0, 7), (1, 1), (3, 8), (40, 100)])
def test_runs_of_numbers_come_back_and_are_told_from_bits(runs: int, images: int) -> None:
    draw = np.random.default_rng(runs)
    numbers = [pack_scores(draw.normal(size=images)) for _ in range(runs)]
    text = packed_each(numbers, images, numbers=True)
    assert text.startswith(":") and unpacked_each(text, runs, images) == numbers
    bits = [pack_bits(draw.random(images) < 0.7) for _ in range(runs)]
    assert packed_each(bits, images, numbers=False) == packed_bits(bits, images)
    assert unpacked_each(packed_bits(bits, images), runs, images) == bits
    with pytest.raises(DAMAGED):
        unpacked_each(text, runs + 1, images)


@settings(max_examples=50)
@given(arrays(np.float64, 20, elements=floats(-100, 100)))
def test_numbers_have_the_mean_of_their_images_but_for_rounding(each: NDArray[np.float64]) -> None:
    mean, rounding = mean_of(pack_scores(each), 20)
    assert abs(mean - each.mean()) <= rounding + 1e-12 and rounding <= 2**-11 * np.abs(each).max() + 2**-24
    score = float(each.mean())
    mean, rounding = mean_of(stand_in(score, 20, numbers=True), 20)
    assert abs(mean - score) <= rounding + 1e-12


def test_bits_have_their_mean_exactly() -> None:
    assert mean_of(pack_bits(np.arange(60) < 21), 60) == (0.35, 0.0)
