"""The control row of an attacker who starts from nothing: a randomly initialised model of the same architecture.

No paper, no equations and no deviations. Source accuracy is at chance by design: nothing is released but the
architecture, and the curves of this row are what sample-wise learning curves and overheads are measured against.
"""

from torch import nn

from ntbench.method import Context, Defense, head, register


@register
class Scratch(Defense):
    """Throw the pretrained weights away."""

    name = "scratch"
    needs_source = False
    expected_failures = {"check_keeps_source_accuracy": "nothing that was learnt on source is released"}

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return a random model with as many classes as the given one."""
        return ctx.fresh(head(model).out_features)
