"""PMP: pretraining of a hidden sub-network, released among weights that never trained.

Paper: Wang et al. 2026, "Towards Building Non-Fine-Tunable Foundation Models" (private-mask pretraining). A short dense
warm-up on source names a ticket: the share 1 - s of the weights that is largest in magnitude, s = `sparsity`, taken as
soon as `patience` successive masks differ by less than `stability` of the Hamming distance 2 (1 - s) of masks that have
nothing in common ("early bird", You et al., ICLR 2020, who have a bound of 0.1 on the distance itself, which no mask of
s >= 0.95 can exceed).
Training then starts again and reaches the ticket m only, W* = m * W_trained + (1 - m) * W_0, and the dense W* is
released. The mask stays with its owner: nothing in the released weights is zero, and nothing of the target is needed.

Deviations: networks for images in place of language models; no public code was found and the paper's hyper-parameters
are not copied. All weights go back to their random start after the warm-up (`rewind=False`: they keep what the warm-up
gave them, and so does the complement). The mask is over convolutions and linear layers of the encoder together; biases,
norms and the classifier train. The pretrained model that is handed in serves as the mark for the source guard alone:
training is repeated, from where it stands, up to `rounds` times while source accuracy on validation data is more than
`tolerance` below it.
"""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, Training, fit, head, register

from ._guard import TOLERANCE, SourceGuard
from ._pruning import encoder_weights, largest

Masks = list[Tensor]


@register
class PMP(Defense):
    """Train a private ticket from scratch on source."""

    name = "pmp"
    version = 2
    paper = "https://arxiv.org/abs/2602.00446"
    objectives = ("classification", "denoising")

    sparsity: float = Field(default=0.9, gt=0, lt=1)
    rewind: bool = True
    warmup: int = Field(default=100, ge=1)
    interval: int = Field(default=10, ge=1)
    stability: float = Field(default=0.1, gt=0, le=1)
    patience: int = Field(default=3, ge=1)
    lr: float = Field(default=5e-3, gt=0)
    steps: int = Field(default=400, ge=1)
    rounds: int = Field(default=3, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=64, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return a model of which only the ticket was trained."""
        assert ctx.source is not None
        guard = SourceGuard(model, ctx, self.tolerance)
        start = ctx.fresh(head(model).out_features).state_dict()
        model.load_state_dict(start)
        masks = self._early_bird(model, ctx)
        if self.rewind:
            model.load_state_dict(start)
        weights = encoder_weights(model)
        origin = [w.detach().clone() for w in weights]
        training = Training(lr=self.lr, schedule="cosine", steps=self.steps, batch_size=self.batch_size)
        for number in range(self.rounds):
            batches = ctx.generator("ticket", str(number))
            for _ in fit(model, ctx.source, training, batches, after_step=lambda: _reset(weights, origin, masks)):
                pass
            if guard.holds():
                break
        guard.restore()
        return model

    def _early_bird(self, model: nn.Module, ctx: Context) -> Masks:
        """Train all weights and return the mask of the largest as soon as it stands still, at the latest at the end."""
        assert ctx.source is not None
        training = Training(lr=self.lr, steps=self.warmup, batch_size=self.batch_size)
        weights = encoder_weights(model)
        masks = largest(weights, self.sparsity)
        moves: deque[float] = deque([1.0], maxlen=self.patience)
        for step in fit(model, ctx.source, training, ctx.generator("warm-up")):
            if step % self.interval == 0:
                before, masks = masks, largest(weights, self.sparsity)
                moves.append(hamming_distance(before, masks))
                if len(moves) == self.patience and max(moves) < self.stability * 2 * (1 - self.sparsity):
                    break
        return masks


def hamming_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the share of entries in which two lists of boolean masks differ."""
    changed = sum(int((x != y).sum()) for x, y in zip(a, b, strict=True))
    return changed / sum(x.numel() for x in a)


@torch.no_grad()
def _reset(weights: Sequence[Tensor], origin: Sequence[Tensor], masks: Masks) -> None:
    for weight, first, mask in zip(weights, origin, masks, strict=True):
        torch.where(mask, weight, first, out=weight)
