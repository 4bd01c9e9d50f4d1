"""Style of feature maps: the statistics of their channels at stage borders, and how other images take them on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntbench.method import features

Kind = Literal["random_per_call", "fixed_random", "learned"]
Style = tuple[Tensor, Tensor]

_GROUPS = 5
_CONTAINERS = ("blocks", "stages", "layers")


@dataclass(frozen=True, eq=False)
class Border:
    """A module that ends a stage; `axis` is that of the channels in its output."""

    module: nn.Module
    axis: int
    channels: int


def find_borders(model: nn.Module, x: Tensor) -> list[Border]:
    """Return at most five stage ends of a network, in the order of its forward pass; it is left in eval mode.

    Stages are timm's `feature_info`, else the children of `blocks`, `stages` or `layers`; more than five are cut into
    five groups. Left out are modules that do not run once per pass and maps of one position, which hold no style apart
    from their content. ValueError where nothing is left.
    """
    outputs: dict[nn.Module, list[Any]] = {stage: [] for stage in _stages(model)}
    handles = [stage.register_forward_hook(lambda m, _, y: outputs[m].append(y)) for stage in outputs]
    try:
        with torch.no_grad():
            features(model.eval(), x)
    finally:
        for handle in handles:
            handle.remove()
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    found = []
    for stage, made in outputs.items():
        if len(made) == 1 and isinstance(made[0], Tensor) and made[0].ndim in (3, 4):
            axis = made[0].ndim - 1 if channels_last or made[0].ndim == 3 else 1
            if made[0][0].numel() > made[0].shape[axis]:
                found.append(Border(stage, axis, made[0].shape[axis]))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no stages with maps of more than one position at {x.shape[-1]} pixels; "
            "take larger images, or an architecture with timm's feature_info"
        )
    ends = range(len(found)) if len(found) <= _GROUPS else [(i + 1) * len(found) // _GROUPS - 1 for i in range(_GROUPS)]
    return [found[end] for end in ends]


def _stages(model: nn.Module) -> list[nn.Module]:
    modules = dict(model.named_modules())
    names = [str(info["module"]) for info in getattr(model, "feature_info", None) or []]
    listed = [modules[name] for name in names if name in modules]
    return listed or [child for name in _CONTAINERS if name in modules for child in modules[name].children()]


def statistics(x: Tensor) -> Style:
    """Return the mean and the deviation sqrt(var + 1e-5) over the positions of x [n, positions, c], both [n, c]."""
    mean = x.mean(1, keepdim=True)
    # torch.var_mean takes three times as long on a CPU.
    return mean[:, 0], ((x - mean).square().mean(1) + 1e-5).sqrt()


def restyle(x: Tensor, style: Style, mixers: Tensor, own: Style | None = None) -> Tensor:
    """Return x * sigmoid(B std) + sigmoid(A mean) for x [n, positions, c], a style and mixers (A, B) [2, c, c].

    With its `own` style, x is normalised to (x - mean) / (std + 1e-6) first.
    """
    shift, scale = (torch.sigmoid(s @ m.T) for s, m in zip(style, mixers, strict=True))
    if own is not None:
        scale = scale / (own[1] + 1e-6)
        shift = shift - own[0] * scale
    return torch.addcmul(shift[:, None], x, scale[:, None])


def _rows(border: Border, maps: Tensor) -> Tensor:
    return maps.movedim(border.axis, -1).flatten(1, -2)


def joined(styles: list[Style]) -> Tensor:
    """Return means and deviations of all borders side by side: mean, deviation, mean, deviation, ..."""
    return torch.cat([part for style in styles for part in style], 1)


class StyleTransfer:
    """Lets images take on the style of others at every stage border of a model.

    Mixers are drawn as torch initialises 1x1 convolutions: anew for every call, once, or once and then learned.
    """

    def __init__(self, model: nn.Module, x: Tensor, kind: Kind, normalise: bool, generator: torch.Generator) -> None:
        """Find the borders with a few images x; `normalise` takes their own style away first."""
        self._model, self._kind, self._normalise, self._generator = model, kind, normalise, generator
        self.borders = find_borders(model, x)
        self._mixers = [self._draw(border).requires_grad_(kind == "learned") for border in self.borders]

    def parameters(self) -> list[Tensor]:
        """Return the mixers that are to be trained."""
        return self._mixers if self._kind == "learned" else []

    def observe(self, x: Tensor) -> tuple[Tensor, list[Style]]:
        """Return the features [n, d] of images as they are, and their style at every border."""
        styles: list[Style] = []

        def note(border: Border, module: nn.Module, args: Any, maps: Tensor) -> None:
            styles.append(statistics(_rows(border, maps)))

        return self._hooked(x, [partial(note, border) for border in self.borders]), styles

    def restyled(self, x: Tensor, givers: list[Style]) -> Tensor:
        """Return the features [n, d] of images that take on the style of a giver [n] at every border."""
        mixers = [self._draw(border) for border in self.borders] if self._kind == "random_per_call" else self._mixers

        def change(border: Border, mix: Tensor, giver: Style, module: nn.Module, args: Any, maps: Tensor) -> Tensor:
            rows = _rows(border, maps)
            taken = restyle(rows, giver, mix, statistics(rows) if self._normalise else None)
            return taken.view(maps.movedim(border.axis, -1).shape).movedim(-1, border.axis)

        changes = zip(self.borders, mixers, givers, strict=True)
        return self._hooked(x, [partial(change, *parts) for parts in changes])

    @torch.no_grad()
    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the joined styles of any number of images, in eval mode, which is left on."""
        self._model.eval()
        passes = [self.observe(part) for part in x.split(200)]
        return torch.cat([f for f, _ in passes]), torch.cat([joined(styles) for _, styles in passes])

    def _hooked(self, x: Tensor, hooks: list[Callable[..., Any]]) -> Tensor:
        """Return the features of images, with a hook at every border that lives as long as the call."""
        pairs = zip(self.borders, hooks, strict=True)
        handles = [border.module.register_forward_hook(hook) for border, hook in pairs]
        try:
            return features(self._model, x)
        finally:
            for handle in handles:
                handle.remove()

    def _draw(self, border: Border) -> Tensor:
        bound = border.channels**-0.5
        drawn = torch.empty(2, border.channels, border.channels).uniform_(-bound, bound, generator=self._generator)
        return drawn.to(next(self._model.parameters()).device)
