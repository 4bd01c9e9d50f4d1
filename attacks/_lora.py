"""Low-rank updates beside the frozen weights of an encoder."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ntbench.method import head

from ._layers import depths


class LowRank(nn.Module):
    """A frozen weight W [out, ...] with its update s B A: A [r, in] is Gaussian of variance 1 / in, B [out, r] zero."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        """Draw A for a weight; `in` is the product of all sizes but the first, and r is at most `in` and `out`."""
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        down = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        self.register_buffer("weight", weight.detach().clone())
        self._scale = scale

    def forward(self) -> Tensor:
        """Return W + s B A in the shape of the weight."""
        weight = self.get_buffer("weight")
        return weight + (self._scale * self.up @ self.down).view(weight.shape)


class LowRankModel(nn.Module):
    """A model whose weights below the head are frozen and get low-rank updates; the head and the updates train.

    The given model stays a plain one: `merge` writes the updated weights into it.
    """

    def __init__(self, model: nn.Module, rank: int, scale: float, generator: torch.Generator) -> None:
        """Freeze all but the head and put an update beside every linear and convolution weight."""
        super().__init__()
        layers = {f"{n}.weight": m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self._names = [name for name, layer in layers.items() if layer is not head(model)]
        self.updates = nn.ModuleList(LowRank(layers[n].weight, rank, scale, generator) for n in self._names)
        self.model = model.requires_grad_(False)
        head(model).requires_grad_(True)

    @property
    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_classifier(self) -> nn.Linear:
        """Return the head of the model."""
        return head(self.model)

    def group_matcher(self, coarse: bool) -> Callable[[str], int]:
        """Return, as networks of timm do, what tells the layer of a parameter: an update's is that of its weight."""
        depth = depths(self.model)

        def layer(name: str) -> int:
            kind, rest = name.split(".", 1)
            return depth[rest if kind == "model" else self._names[int(rest.split(".")[0])]]

        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, K]."""
        updated = dict(zip(self._names, (update() for update in self.updates), strict=True))
        return functional_call(self.model, updated, (x,))  # type: ignore[no-any-return]

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Write the updated weights into the model and return it."""
        for name, update in zip(self._names, self.updates, strict=True):
            self.model.get_parameter(name).copy_(update())
        return self.model
