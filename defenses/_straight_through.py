"""Binary masks that learn: hard zeros and ones forward, the identity backward."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call

from ntbench.method import features


def binary(scores: Tensor, threshold: float) -> Tensor:
    """Return 1 where a score is above the threshold and 0 elsewhere; gradients pass to the scores unchanged.

    Straight-through estimator (Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic Neurons").
    """
    # The difference is exactly 0, so that the values stay exactly 0 and 1.
    return (scores > threshold).to(scores.dtype) + (scores - scores.detach())


class _Encoder(nn.Module):
    """A model without its classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return features(self.model, x)


def features_with(model: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return the features [n, d] of a model with some of its parameters replaced; the model itself does not change."""
    return functional_call(_Encoder(model), {f"model.{name}": w for name, w in weights.items()}, (x,))  # type: ignore[no-any-return]
