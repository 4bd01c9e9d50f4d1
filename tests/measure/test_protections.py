import numpy as np
import pytest

from ntbench.measure.intervals import mean_interval
from ntbench.measure.protections import source_drop
from ntbench.types import Protection, pack_bits

DRAW = np.random.default_rng(0)
CLEAN, KEPT = DRAW.random((2, 5, 50)) < np.array([0.95, 0.9])[:, None, None]


def protections(bits: bool) -> list[Protection]:
    return [
        Protection(
            source_before=clean.mean(),
            source_after=kept.mean(),
            clean=pack_bits(clean) if bits else "",
            kept=pack_bits(kept) if bits else "",
        )
        for clean, kept in zip(CLEAN, KEPT, strict=True)
    ]


def test_the_drop_is_paired_by_seed_and_image() -> None:
    assert source_drop(protections(True), 50) == pytest.approx(mean_interval(CLEAN * 1.0 - KEPT))


def test_without_images_seeds_alone_make_the_interval() -> None:
    drops = (CLEAN.mean(axis=1) - KEPT.mean(axis=1))[:, None]
    assert source_drop(protections(False), 50) == pytest.approx(mean_interval(drops))


def test_what_nobody_recorded_is_unknown() -> None:
    assert np.isnan(source_drop([], 50).point)
    assert np.isnan(source_drop([Protection(source_before=0.9)], 50).point)
