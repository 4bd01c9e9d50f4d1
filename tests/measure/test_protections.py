import numpy as np
import pytest

from ntbench.measure.intervals import mean_interval
from ntbench.measure.protections import distances, source_drop
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


def test_distances_are_means_over_noise_with_their_spread() -> None:
    found = distances(
        [
            Protection(frechets=(1.0, 2.0, 3.0), kids=(0.1, 0.1, 0.1), frechets_before=(1.0, 1.0)),
            Protection(frechets=(4.0, 4.0, 7.0), kids=(0.3, 0.3, 0.6)),
            # What makes no images.
            Protection(source_after=0.5),
        ]
    )
    assert found == pytest.approx(
        {
            "frechet_before": 1.0,
            "frechet_before_spread": 0.0,
            "frechet": 3.5,
            "frechet_spread": (1 + 3**0.5) / 2,
            "kid": 0.25,
            "kid_spread": 0.03**0.5 / 2,
        }
    )
    assert distances([Protection(source_after=0.5)]) == {}


def test_what_was_stored_before_reads_and_dumps_as_it_did() -> None:
    old = '{"status":"ok","source_after":0.5,"drawn":"x"}'
    held = Protection.model_validate_json(old)
    new = {"frechets", "kids", "natural", "frechets_before", "kids_before", "natural_before"}
    assert held.drawn == "x" and not new & held.model_dump().keys()
