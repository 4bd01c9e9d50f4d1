"""A small board that nobody measured: four releases, one with its mask kept too, two attacks, counts and five seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fabricated
import numpy as np
from fabricated import LEVELS, TASK, outcome, recipe, refused, trajectory

from ntbench.suite import Suite
from ntbench.types import Protection, Provenance, Result, pack_bits

SEEDS = (0, 1, 2, 3, 4)
IMAGES, VIEWS, SOURCE = 60, 2, 50
PAIR = TASK.model_copy(update={"levels": tuple(level.model_copy(update={"plateau": 0.35}) for level in LEVELS[:2])})
COUNTS = (10, 100)
GAIN = {"none": 0.3, "scratch": 0.0, "ntp": 0.2, "sophon": 0.05}
SHARES = (0.2, 0.3, 0.5, 0.7, 0.9, 1, 1)
ATTACKS = ("weak", "strong {x}")
NEW = "new"
"""An attack that joins the second version, and breaks `sophon` alone."""
Files = dict[str, Any]


def small_suite(version: int = 1, **changes: Any) -> Suite:
    # A brace in a label is a field in a suite and text in a file.
    labels = [name.replace("{", "{{").replace("}", "}}") for name in faced(version)]
    values: dict[str, Any] = {
        "version": version,
        "tasks": [PAIR],
        "attacks": [{"name": "finetune", "label": name, "grid": {"mask": ["dense", "keep"]}} for name in labels],
        "defenses": [{"name": name} for name in GAIN],
    }
    return fabricated.suite(**values | changes)


def faced(version: int) -> tuple[str, ...]:
    return ATTACKS if version == 1 else (*ATTACKS, NEW)


def small_results(
    defenses: Sequence[str] = tuple(GAIN), version: int = 1, seeds: Sequence[int] = SEEDS
) -> list[Result]:
    return [
        one(defense, mask, attack, samples, seed, f"tiny-{version}")
        for defense in defenses
        for mask in ("dense", "keep")
        for attack in faced(version)
        for samples in COUNTS
        for seed in seeds
    ]


def one(defense: str, mask: str, attack: str, samples: int, seed: int, protocol: str = "tiny-1") -> Result:
    cell = recipe(defense, attack, samples, seed, mask=mask, task=PAIR, protocol=protocol)
    if mask == "keep" and defense != "ntp":
        return refused(cell, f"{defense} releases no zeros\nFile /home/somebody/x.py")
    gain = GAIN[defense] - 0.1 * (attack == "weak") if attack != NEW else 0.25 * (defense == "sophon") - 0.05
    level = 0.35 + gain - 0.2 * (mask == "keep") + 0.05 * (samples == 100)
    draw = np.random.default_rng([seed, int(cell.key, 16)])
    right = [draw.random(IMAGES) < level * share for share in SHARES]
    run = trajectory([float(r.mean()) for r in right], [level * s + 0.001 * seed for s in SHARES], right=right)
    return outcome(cell, run, images=IMAGES, originals=IMAGES // VIEWS, source_images=SOURCE, **_origin(seed))


def _origin(seed: int) -> dict[str, Any]:
    before, after = np.arange(SOURCE) != 3, np.arange(SOURCE) > seed % 2
    protection = Protection(
        needs="source labels",
        source_before=float(before.mean()),
        source_after=float(after.mean()),
        clean=pack_bits(before),
        kept=pack_bits(after),
        zero_shot=0.1,
        sparsity=0.5,
        pretrain_seconds=2.0,
        pretrain_flops=200,
        protect_seconds=4.0,
        protect_flops=700,
        protect_steps=30,
    )
    origin = Provenance(data={"b/test": "feed"}, versions={"ntbench": "0.1.0"}, device="cpu")
    return {"protection": protection, "provenance": origin}


def loaded(folder: Path, defense: str = "ntp") -> Files:
    """Return what a published file of the board holds."""
    file: Files = json.loads((folder / "tiny" / defense / "a-b.json").read_bytes())
    return file


def written(folder: Path, file: Files, defense: str = "ntp") -> Path:
    """Write an edited file and return its path."""
    path = folder / "tiny" / defense / "a-b.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    return path


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every plain value of a file with the way to it."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*place, key))
    else:
        yield place, value
