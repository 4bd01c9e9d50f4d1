"""Low-rank updates beside the frozen weights of an encoder."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ntbench.method import head


class LowRank(nn.Module):
    """The update s B A of a weight [out, ...], with A [r, in] Gaussian of variance 1 / in and B [out, r] zero."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        """Draw A for a weight; `in` is the product of all sizes but the first, and r is at most `in` and `out`."""
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        down = torch.randn(rank, columns, generator=generator) / columns**0.5
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))
        self._scale, self._shape = scale, weight.shape

    def forward(self) -> Tensor:
        """Return the update in the shape of the weight."""
        return (self._scale * self.up @ self.down).view(self._shape)


class LowRankModel(nn.Module):
    """A model whose weights below the head are frozen and get low-rank updates; the head and the updates train.

    The given model stays a plain one: `merge` writes the updated weights into it.
    """

    def __init__(self, model: nn.Module, rank: int, scale: float, generator: torch.Generator) -> None:
        """Freeze all but the head and put an update beside every linear and convolution weight."""
        super().__init__()
        layers = {f"{n}.weight": m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self._weights: dict[str, Tensor] = {n: m.weight for n, m in layers.items() if m is not head(model)}
        self._frozen = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.updates = nn.ModuleList(LowRank(w, rank, scale, generator) for w in self._weights.values())
        self.model = model.requires_grad_(False)
        head(model).requires_grad_(True)

    @property
    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_classifier(self) -> nn.Linear:
        """Return the head of the model."""
        return head(self.model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, K]."""
        return functional_call(self.model, self._updated(), (x,))  # type: ignore[no-any-return]

    @torch.no_grad()
    def merge(self) -> None:
        """Write the updated weights into the model."""
        for name, updated in self._updated().items():
            self._weights[name].copy_(updated)

    def _updated(self) -> dict[str, Tensor]:
        updates = zip(self._frozen.items(), self.updates, strict=True)
        return {name: weight + update() for (name, weight), update in updates}
