"""The control row for NTP: plain magnitude pruning to NTP's sparsity on source, on NTP's schedule, without its losses.

Paper: Zhu and Gupta 2017, "To Prune, or Not to Prune" (https://arxiv.org/abs/1710.01878), after Han et al. 2015. While
the model trains on source, the weights of smallest |w| over all convolutions and linear layers of the encoder are set
to zero after every `steps` steps, ever more of them on a cubic schedule; training then goes on inside the last mask.
What NTP gains over this row is what its target losses do; the rest is the capacity that sparsity takes.

Deviations: one global threshold in place of one per layer. Where training inside the last mask leaves more than
`tolerance` of the source on validation data lost, the last mask of the schedule that does not is released instead, and
`sparsity` is what was asked for. Pruning at once (Han et al.) removed whole layers of a ResNet-18 at a sparsity of
0.95, from which no training returned.
"""

from collections.abc import Sequence

from torch import Tensor

from ntbench.method import Context, register

from ._gradual import GradualPruning, Scores


@register
class Magnitude(GradualPruning):
    """Prune the smallest weights step by step while training on source."""

    name = "magnitude"
    version = 2
    paper = "https://arxiv.org/abs/1710.01878"
    masked = True

    def _scores(self, weights: Sequence[Tensor], ctx: Context) -> Scores:
        return lambda: weights
