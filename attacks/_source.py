"""What attacks with source data own of the source."""

import torch

from ntbench.method import Context, Split


def owned_source(ctx: Context, share: float) -> Split:
    """Return a random share of the source images, at least one; attacks of one task and seed own the same ones."""
    assert ctx.source is not None
    order = torch.randperm(len(ctx.source), generator=ctx.generator("owned source"))
    return ctx.source.subset(order[: max(1, round(share * len(ctx.source)))].to(ctx.device))
