"""Fine-tuning on source data alone: what trains, what it may see, and what the four strategies do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from toys import context, learnt

from ntbench.learn.models import pack
from ntbench.learn.scoring import accuracy
from ntbench.method import Access, Context, Split
from ntbench.registry import registry


def granted(**changes: Any) -> Context:
    return replace(context(), **({"target": None, "source_val": None, "steps": 30} | changes))


def attacked(ctx: Context, **params: Any) -> nn.Module:
    attack = registry.get("attack", "source_finetune")(**params)
    *_, model = attack.attack(learnt(), ctx)
    return model  # type: ignore[no-any-return]


def test_it_asks_for_the_source_alone_and_works_on_images_whatever_trains() -> None:
    attack = registry.get("attack", "source_finetune")
    assert attack.access == Access(source=True, target=None)
    assert not attack(scope="head").on_features and not attack().on_features


def test_the_head_alone_trains_where_the_scope_says_so() -> None:
    before, after = pack(learnt()), pack(attacked(granted(), scope="head", lr=0.1))
    trained = {name for name in before if not torch.equal(before[name], after[name]) and "running" not in name}
    assert trained == {"head.weight", "head.bias", *(n for n in before if n.endswith("num_batches_tracked"))}


@pytest.mark.parametrize("scope", ["all", "head"])
def test_labels_of_the_source_teach_a_new_head(scope: str) -> None:
    ctx = granted()
    assert ctx.source is not None
    validation, turned = context().source_val, Split(ctx.source.x, (ctx.source.y + 1) % 3)
    assert validation is not None
    settings = {"scope": scope, "init": "reinit", "optimizer": "adam", "lr": 3e-3}
    assert accuracy(attacked(ctx, **settings), validation) > 0.9
    assert accuracy(attacked(replace(ctx, source=turned), **settings), validation) < 0.1


def test_other_classes_on_the_target_are_an_error_with_both_counts() -> None:
    attack = registry.get("attack", "source_finetune")()
    with pytest.raises(ValueError, match=r"3 classes and the target has 4"):
        next(attack.attack(learnt(), granted(target_classes=4)))
