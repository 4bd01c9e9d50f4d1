"""The control that goes on training on source: step for step torch's own Adam on the same batches, and no target."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import islice

import torch
from denoisers import granted, released
from torch.nn import functional as F
from toys import context, defense, pretrained

from ntbench.learn.scoring import accuracy

STEPS = 6


def test_it_is_adam_on_the_batches_of_the_source_at_a_rate_that_falls_to_0() -> None:
    ctx = replace(context(), target=None)
    assert ctx.source is not None
    ours, byhand = pretrained(ctx), pretrained(ctx).train()
    optimizer = torch.optim.Adam(byhand.parameters(), lr=1e-3)
    for step, (x, y) in enumerate(islice(ctx.source.batches(16, ctx.generator("source")), STEPS)):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / STEPS)
        optimizer.zero_grad()
        F.cross_entropy(byhand(x), y).backward()
        optimizer.step()
    found = defense("continued", steps=STEPS, batch_size=16).protect(ours, ctx).state_dict()
    for name, value in byhand.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_a_denoiser_goes_on_learning_its_source() -> None:
    ctx = granted()
    assert ctx.source_val is not None
    before = released()
    after = defense("continued", steps=60, lr=5e-3, batch_size=16).protect(copy.deepcopy(before), ctx)
    assert accuracy(after, ctx.source_val) > accuracy(before, ctx.source_val)
