"""Fine-tuning on source data alone: what trains, what it may see, and what the four strategies do."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn
from toys import context, learnt

from ntbench.method import Access, Context, head
from ntbench.models import pack
from ntbench.registry import registry
from ntbench.train import accuracy

owned_source = import_module("ntbench.attacks._source").owned_source


def granted(**changes: Any) -> Context:
    return replace(context(), **({"target": None, "source_val": None} | changes))


def attacked(**params: Any) -> nn.Module:
    attack = registry.get("attack", "source_finetune")(**params)
    *_, model = attack.attack(learnt(), granted())
    return model  # type: ignore[no-any-return]


def test_what_is_owned_is_that_share_of_the_source_and_grows_with_it() -> None:
    ctx = granted()
    assert ctx.source is not None
    few, more = (owned_source(ctx, share) for share in (0.1, 0.5))
    assert len(few) == 12 and len(more) == 60 and len(owned_source(ctx, 1e-9)) == 1
    assert torch.equal(few.x, more.x[:12])
    matches = [(ctx.source.x == x).all((1, 2, 3)).nonzero().item() for x in more.x]
    assert len(set(matches)) == 60 and torch.equal(ctx.source.y[matches], more.y)
    other = owned_source(replace(ctx, seed=1), 0.1)
    assert not torch.equal(other.x, few.x)


def test_it_asks_for_the_source_alone_and_works_on_images_whatever_trains() -> None:
    attack = registry.get("attack", "source_finetune")
    assert attack.access == Access(source=True, target=None)
    assert not attack(scope="head").on_features and not attack().on_features


def test_the_head_alone_trains_where_the_scope_says_so() -> None:
    before, after = pack(learnt()), pack(attacked(scope="head", lr=0.1))
    trained = {name for name in before if not torch.equal(before[name], after[name]) and "running" not in name}
    assert trained == {"head.weight", "head.bias", *(n for n in before if n.endswith("num_batches_tracked"))}


def test_source_labels_repair_a_new_head() -> None:
    ctx = context()
    assert ctx.source_val is not None
    model = attacked(init="reinit", optimizer="adam", lr=1e-2, share=1.0)
    assert accuracy(model, ctx.source_val) > 0.9
    shuffled = replace(ctx.source, y=ctx.source.y.roll(1)) if ctx.source else None
    attack = registry.get("attack", "source_finetune")(init="reinit", optimizer="adam", lr=1e-2, share=1.0)
    *_, misled = attack.attack(learnt(), granted(source=shuffled))
    assert accuracy(misled, ctx.source_val) < 0.5


def test_other_classes_on_the_target_are_an_error_with_both_counts() -> None:
    attack = registry.get("attack", "source_finetune")()
    with pytest.raises(ValueError, match=r"3 classes and the target has 4"):
        next(attack.attack(learnt(), granted(target_classes=4)))
    assert head(learnt()).out_features == 3
