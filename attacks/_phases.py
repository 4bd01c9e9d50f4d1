"""Attacks in two phases: which steps belong to which."""

from dataclasses import replace

from ntbench.method import Context


def phases(ctx: Context, share: float) -> tuple[Context, Context]:
    """Return the same context twice: with a share of the optimizer steps, rounded down, and with the rest of them."""
    first = int(share * ctx.steps)
    return replace(ctx, steps=first), replace(ctx, steps=ctx.steps - first)
