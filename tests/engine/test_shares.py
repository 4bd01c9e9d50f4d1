"""Who holds which images: nobody trains on what another one of the same cell holds, unless a suite says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ntbench.engine.shares import HELD_OUT, Shares
from ntbench.errors import UserError
from ntbench.tasks.data import Split, load_domain
from ntbench.types import Cell

Made = Callable[..., Shares]


def images(split: Split | None) -> set[bytes]:
    """Return the images of a split; in the domains of these tests no two are equal."""
    assert split is not None
    found = {x.numpy().tobytes() for x in split.x}
    assert len(found) == len(split)
    return found


@pytest.fixture
def shares(cell: Cell, cache: Path) -> Made:
    """Build the shares of a cell from syn to digits_m with some changes; `task` holds those of the task."""

    def made(task: dict[str, Any] | None = None, **changes: Any) -> Shares:
        held = cell.task.model_copy(update={"source": "syn", **(task or {})})
        return Shares(Cell.model_validate(cell.model_copy(update={"task": held, **changes}).model_dump()), cache)

    return made


@pytest.fixture(scope="module")
def target(cache: Path) -> set[bytes]:
    return images(load_domain("digits_m", 8, cache).train)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_defender_and_attackers_divide_the_training_images(
    shares: Made, target: set[bytes], seed: int, share: float
) -> None:
    task = {"defender_share": share}
    whole = len(target) - round(share * len(target))
    found = shares(task, seed=seed, samples=whole)
    train, val = (images(part) for part in found.defenders)
    pool = images(found.owned)
    assert not train & val and not (train | val) & pool
    assert train | val | pool == target, "together they hold every training image and nothing else"
    assert len(train | val) == round(share * len(target)) and len(val) == round(HELD_OUT * len(train | val))


def test_samples_are_nested_and_in_proportion(shares: Made) -> None:
    parts = [shares(samples=count).owned for count in (10, 12, 48, 300)]
    found = [images(part) for part in parts]
    assert all(a < b for a, b in itertools.pairwise(found))
    assert set(parts[0].y.tolist()) == set(range(10)), "ten samples of ten classes show each of them"


def test_seeds_divide_anew_and_nothing_else_of_a_cell_does(shares: Made) -> None:
    plain = shares()
    other = plain._cell.attack.model_copy(update={"name": "other", "params": {"lr": 1.0}})
    budget = plain._cell.budget.model_copy(update={"t90": 7.0})
    levels = (*plain._cell.task.levels, plain._cell.task.levels[-1].model_copy(update={"samples": 400}))
    same = shares({"levels": levels, "label": "a pair"}, attack=other, defense=other, budget=budget)
    assert images(same.owned) == images(plain.owned)
    assert [images(part) for part in same.defenders] == [images(part) for part in plain.defenders]
    seeded = shares(seed=1)
    assert images(seeded.owned) != images(plain.owned)
    assert images(seeded.defenders[0]) != images(plain.defenders[0])
    assert images(seeded.owned) & images(plain.defenders[0]), "who holds an image is drawn anew"


def test_where_a_suite_shares_everybody_draws_from_all(shares: Made, target: set[bytes], cache: Path) -> None:
    found = shares({"shared": True}, samples=len(target))
    assert images(found.defenders[0]) == target == images(found.owned)
    assert images(found.defenders[1]) == images(load_domain("digits_m", 8, cache).val)


def test_several_domains_are_defended_at_once(shares: Made) -> None:
    both = shares({"defended": ("digits", "digits_m")})
    alone = {name: shares({"defended": (name,)}) for name in ("digits", "digits_m")}
    assert both.defenders[0] and len(both.defenders[0]) == sum(len(one.defenders[0] or ()) for one in alone.values())
    assert not images(both.defenders[0]) & images(both.owned)
    assert both.guarded_classes == 10


def test_another_domain_than_the_target_may_be_defended(shares: Made, target: set[bytes]) -> None:
    found = shares({"defended": ("syn",)}, samples=600)
    assert not any(images(part) & target for part in found.defenders)
    assert images(found.owned) < target


def test_nobody_may_be_defended(shares: Made, target: set[bytes]) -> None:
    found = shares({"defended": ()})
    assert found.defenders == (None, None)
    assert images(found.owned) < target and found.guarded_classes == 10


def test_domains_of_different_classes_cannot_be_defended_at_once(shares: Made, tmp_path: Path) -> None:
    from PIL import Image

    for index in range(20):
        file = tmp_path / "two" / "ab"[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (10 * index, 0, 0)).save(file)
    found = shares({"defended": ("digits_m", f"folder:{tmp_path / 'two'}")})
    with pytest.raises(UserError, match=r"defended: domains of different class counts .* cannot be defended at once"):
        found.guarded_classes  # noqa: B018


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25])
def test_a_source_share_is_a_part_of_every_larger_one(shares: Made, cache: Path, share: float) -> None:
    source = load_domain("syn", 8, cache).train
    small, large = shares(source_share=share).owned_source, shares(source_share=2 * share).owned_source
    assert len(small) == round(share * len(source))
    assert images(small) < images(large) <= images(source)
    assert images(shares(source_share=share, samples=300).owned_source) == images(small)
    assert images(shares(source_share=share, seed=1).owned_source) != images(small)


@pytest.mark.parametrize("samples", [100, 250])
def test_who_chooses_by_its_own_samples_puts_a_fifth_of_them_aside(shares: Made, samples: int) -> None:
    own, others = shares(samples=samples, knowledge="own"), shares(samples=samples)
    held = own.held_out
    assert held is not None and len(held) == round(HELD_OUT * samples)
    assert not images(held) & images(own.subset)
    assert images(held) | images(own.subset) == images(others.subset) == images(own.owned)
    assert others.held_out is None and own.refusal == others.refusal == ""


@pytest.mark.parametrize("samples", [12, 97])
def test_with_too_few_samples_there_is_nothing_to_choose_by(shares: Made, samples: int) -> None:
    reason = shares(samples=samples, knowledge="own").refusal
    assert reason == f"a fifth of {samples} samples is under 2 a class: nothing to choose by"
    assert shares(samples=samples).refusal == ""


def test_more_samples_than_the_pool_holds_are_refused(shares: Made, target: set[bytes]) -> None:
    pool = len(target) - round(0.5 * len(target))
    assert len(shares(samples=pool).owned) == pool
    with pytest.raises(ValueError, match=rf"{pool + 1} samples are asked for, of {pool}; give a count in between"):
        shares(samples=pool + 1).owned  # noqa: B018


def test_hashes_of_both_domains_are_told(shares: Made, cache: Path) -> None:
    found = shares().digests
    assert found.keys() == {f"{name}/{part}" for name in ("syn", "digits_m") for part in ("train", "val", "test")}
    assert found["syn/test"] == load_domain("syn", 8, cache).digests["test"]
