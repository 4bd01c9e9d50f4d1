"""The head through which a defense sees a target of its own classes."""

from importlib import import_module

from toys import context, pretrained, same

from ntbench.learn.models import features, head, pack

target_head = import_module("ntbench.defenses._heads").target_head


def test_target_head_is_the_models_own_or_one_that_knows_the_target() -> None:
    model = pretrained(context())
    assert target_head(model, context(), 30) is head(model)
    before, ctx = pack(model), context(5)
    found = target_head(model, ctx, 60)
    assert ctx.target is not None
    assert not any(p.requires_grad for p in found.parameters())
    assert same(pack(model), before)
    known = (found(features(model, ctx.target.x)).argmax(1) == ctx.target.y).float().mean()
    assert known > 0.6
