"""The control row without any defense: the pretrained model is released as it is.

No paper, no equations and no deviations: this is the point that every defense is compared with.
"""

from torch import nn

from ntbench.method import Context, Defense, register


@register
class Undefended(Defense):
    """Release the pretrained weights."""

    name = "none"
    needs_source = False

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model as it came."""
        return model
