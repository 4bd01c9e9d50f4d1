"""Masks over the weights of an encoder: which weights count, how many stay, and how far the source lets pruning go."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntbench.method import Context, Training, fit, head

from ._guard import SourceGuard

Tune = Callable[[list[Tensor], float], None]
"""Trains inside masks, at a share of the rate that was asked for."""
RATES = (1.0, 0.25, 0.0625)
REMEDY = "a lower `sparsity`, more `tune_steps` or a lower `tune_lr`"


@dataclass(frozen=True)
class Stage:
    """A state on the way of a pruning: all weights, and the masks over the prunable ones."""

    state: dict[str, Tensor]
    masks: list[Tensor]

    @classmethod
    def of(cls, model: nn.Module, masks: Sequence[Tensor]) -> "Stage":
        """Keep a copy of a model as it is, with its masks."""
        return cls(copy.deepcopy(model.state_dict()), list(masks))


def release_strongest(model: nn.Module, guard: SourceGuard, stages: Iterable[Stage], tune: Tune) -> None:
    """Leave the last stage, tuned inside its masks, that the guard lets pass, found by halving the way to it.

    What is released is then sparser than any other stage that was tried and passed. UnusableError where none passes.
    """
    way = list(stages)
    passed, failed = -1, len(way)
    tried = failed - 1
    while passed < tried:
        model.load_state_dict(way[tried].state)
        if _survives(guard, tune, way[tried].masks):
            passed = tried
        else:
            failed = tried
        tried = (passed + failed) // 2
    guard.restore()


def _survives(guard: SourceGuard, tune: Tune, masks: list[Tensor]) -> bool:
    """Return whether tuning inside masks brings the source back, in rounds of ever lower rates until it does."""
    for share in RATES:
        tune(masks, share)
        if guard.holds():
            return True
    return False


def encoder_weights(model: nn.Module, batch_norm: bool = False) -> list[Tensor]:
    """Return the weights of every convolution and linear layer but the classifier; biases are no part.

    With `batch_norm`, weights and biases of batch norm follow.
    """
    classifier = head(model)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not classifier]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and batch_norm]
    return [layer.weight for layer in layers] + [p for norm in norms for p in norm.parameters(recurse=False)]


def largest(tensors: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Return boolean masks that drop exactly round(sparsity * n) of all n entries, the smallest in magnitude.

    Entries of equal magnitude are kept in their order.
    """
    magnitudes = torch.cat([t.detach().abs().flatten() for t in tensors])
    kept = len(magnitudes) - round(sparsity * len(magnitudes))
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    mask[magnitudes.argsort(descending=True, stable=True)[:kept]] = True
    parts = mask.split([t.numel() for t in tensors])
    return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]


def sparsity_of(masks: Sequence[Tensor]) -> float:
    """Return the share of entries that masks drop."""
    return 1 - sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


def cubic_sparsity(final: float, step: int, steps: int) -> float:
    """Return final * (1 - (1 - step / steps)^3), and `final` from `steps` on (Zhu and Gupta 2017, eq. 1, from 0)."""
    return final * (1 - (1 - min(1.0, step / steps)) ** 3)


@torch.no_grad()
def clear(weights: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    """Set the weights outside their masks to zero."""
    for weight, mask in zip(weights, masks, strict=True):
        weight.masked_fill_(~mask, 0.0)


def tune_masked(
    model: nn.Module,
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    ctx: Context,
    steps: int,
    lr: float,
    batch_size: int,
) -> None:
    """Train on source with Adam at a falling rate, and put the zeros outside the masks back after every step."""
    assert ctx.source is not None
    clear(weights, masks)
    if not steps:
        return
    training = Training(optimizer="adam", lr=lr, schedule="linear", steps=steps, batch_size=batch_size)
    for _ in fit(model, ctx.source, training, ctx.generator("tune"), after_step=lambda: clear(weights, masks)):
        pass


def soft_threshold(x: Tensor, delta: float) -> Tensor:
    """Return sign(x) * max(|x| - delta, 0), the proximal map of delta * |x|_1."""
    return x.sign() * (x.abs() - delta).clamp_min(0)


def admm_penalty(weights: Sequence[Tensor], z: Sequence[Tensor], u: Sequence[Tensor], power: int) -> Tensor:
    """Return the sum over layers of |W - Z + U|_2^power; power 2 is the augmented Lagrangian's."""
    norms = [torch.linalg.vector_norm(w - t + d) for w, t, d in zip(weights, z, u, strict=True)]
    return torch.stack(norms).pow(power).sum()
