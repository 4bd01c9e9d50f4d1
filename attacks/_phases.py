"""Attacks in two phases: which steps belong to which."""

from dataclasses import replace

from ntbench.method import Context


def phases(ctx: Context, share: float) -> tuple[Context, Context]:
    """Return the same context twice: with a share of the optimizer steps, rounded down, and with the rest of them."""
    first = int(share * ctx.budget.steps)
    both = (first, ctx.budget.steps - first)
    before, after = (replace(ctx, budget=ctx.budget.model_copy(update={"steps": steps})) for steps in both)
    return before, after
