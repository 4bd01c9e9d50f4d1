"""A rehearsal is played with what one defender holds: whatever it may not read can be anything, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

import ntbench.engine.shares
from ntbench.engine.rehearsal import Rehearsal, recoloured, shares_of
from ntbench.engine.shares import HELD_OUT, Shares
from ntbench.tasks.data import Domain, Split, load_domain
from ntbench.types import Cell


def rehearsal(cell: Cell, cache: Path, kind: str, **task: Any) -> Rehearsal:
    played = cell.task.model_copy(update={"source": "syn", "rehearsal": kind, **task})
    found = shares_of(cell.model_copy(update={"task": played}), cache)
    assert isinstance(found, Rehearsal)
    return found


def images(*splits: Split | None) -> set[bytes]:
    return {x.numpy().tobytes() for split in splits if split is not None for x in split.x}


def held(shares: Shares) -> dict[str, Split]:
    """Return everything that anybody gets to see in a cell."""
    parts = {f"{name}.{part}": getattr(getattr(shares, name), part) for name in ("source", "target", "origin")
             for part in ("train", "val", "test")}  # fmt: skip
    train, val = shares.defenders
    assert train is not None and val is not None
    return parts | {"defender.train": train, "defender.val": val, "owned": shares.owned, "share": shares.owned_source}


def test_on_the_target_all_images_are_of_the_defenders_share(cell: Cell, cache: Path) -> None:
    shares = rehearsal(cell, cache, "target")
    task = cell.task.model_copy(update={"source": "syn"})
    train, val = Shares(cell.model_copy(update={"task": task}), cache).defenders
    assert train is not None and val is not None
    assert images(shares.target.train) == images(train)
    assert images(shares.target.val) == images(shares.target.test) == images(val)
    inner, inner_val = (images(part) for part in shares.defenders)
    assert inner | inner_val | images(shares.pool) == images(train)
    assert not inner & images(shares.pool) and not inner & inner_val


def test_the_source_is_scored_on_a_fifth_of_its_training_images_which_nobody_trains_on(cell: Cell, cache: Path) -> None:
    real, shares = load_domain("syn", 8, cache), rehearsal(cell, cache, "target")
    train, test = images(shares.source.train), images(shares.source.test)
    assert train | test == images(real.train) and not train & test
    assert shares.source.originals == len(shares.source.test) == round(HELD_OUT * len(real.train))
    assert images(shares.source.val) == images(real.val) and shares.origin is shares.source
    other = rehearsal(cell, cache, "source", target="digits")
    assert images(other.source.test) == test, "tasks of one source share the pretrained model"


@pytest.mark.parametrize(("kind", "free"), [("target", {"syn": "test", "digits_m": "val test"}), ("source", {})])
def test_nothing_outside_of_the_access_is_read(
    cell: Cell, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str, free: dict[str, str]
) -> None:
    """Other people's images are replaced by nonsense, and everything that a rehearsal hands out stays as it was."""
    task = cell.task.model_copy(update={"source": "syn"})
    attackers = images(Shares(cell.model_copy(update={"task": task}), cache).pool)
    before = held(rehearsal(cell, cache, kind))

    def spoilt(name: str, *rest: Any) -> Domain:
        if kind == "source" and name != "syn":
            raise AssertionError(f"{name} is read, though the defense holds its source alone")
        domain = load_domain(name, *rest)
        parts: dict[str, Any] = {part: noise(getattr(domain, part)) for part in free.get(name, "test").split()}
        if name == "digits_m":
            own = [x.numpy().tobytes() in attackers for x in domain.train.x]
            x = torch.where(torch.tensor(own)[:, None, None, None], torch.nan, domain.train.x)
            parts["train"] = Split(x.contiguous(memory_format=torch.channels_last), domain.train.y)
        return replace(domain, **parts)

    monkeypatch.setattr(ntbench.engine.shares, "load_domain", spoilt)
    after = held(rehearsal(cell, cache, kind))
    assert before.keys() == after.keys()
    for name, split in before.items():
        assert torch.equal(split.x, after[name].x) and torch.equal(split.y, after[name].y), name


def noise(split: Split) -> Split:
    return Split(torch.full_like(split.x, torch.nan), torch.zeros_like(split.y))


def test_several_guarded_domains_are_one_target(cell: Cell, cache: Path) -> None:
    guarded = ("digits", "digits_m")
    shares = rehearsal(cell, cache, "target", defended=guarded)
    task = cell.task.model_copy(update={"source": "syn", "defended": guarded})
    train, _ = Shares(cell.model_copy(update={"task": task}), cache).defenders
    assert train is not None and images(shares.target.train) == images(train)
    assert all(images(train) & images(load_domain(name, 8, cache).train) for name in guarded)
    assert shares.guarded_classes == shares.target.classes == 10


def test_made_images_are_differences_from_smooth_fields_of_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1).contiguous(memory_format=torch.channels_last)
    found = recoloured(Split(x, torch.arange(3)), torch.Generator().manual_seed(1))
    coarse = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1)).numpy()
    # Bilinear between pixel centres, which are the same at the corners' edges for SciPy's grid mode.
    fields = zoom(coarse, (1, 1, 4, 4), order=1, mode="nearest", grid_mode=True)
    expected = np.abs((x.numpy() + 1) / 2 - fields) * 2 - 1
    np.testing.assert_allclose(found.x.numpy(), expected, atol=1e-5)
    assert found.x.is_contiguous(memory_format=torch.channels_last) and torch.equal(found.y, torch.arange(3))
    assert (found.x >= -1).all() and (found.x <= 1).all()


def test_a_cell_that_is_no_rehearsal_has_the_shares_of_its_task(cell: Cell, cache: Path) -> None:
    assert type(shares_of(cell, cache)) is Shares
