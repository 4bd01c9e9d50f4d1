"""SimCLR: an encoder that learns, without labels, to tell which two views come from one image.

Chen et al., ICML 2020, "A Simple Framework for Contrastive Learning of Visual Representations", equation 1.
"""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import (
    Context,
    Defense,
    Field,
    Training,
    create_optimizer,
    create_schedule,
    descend,
    features,
    head,
)

from ._heads import fit_head
from ._views import blurred, cropped, noisy, relit


class Contrastive(Defense):
    """What defenses on a contrastive encoder share: views of images, pretraining with a projector, a linear probe."""

    pretrain_steps: int = Field(default=300, ge=1)
    pretrain_lr: float = Field(default=3e-3, gt=0)
    pretrain_batch_size: int = Field(default=128, ge=2)
    temperature: float = Field(default=0.2, gt=0)
    hidden: int = Field(default=128, ge=1)
    projection_size: int = Field(default=64, ge=1)
    zoom: float = Field(default=0.4, ge=0, lt=1)
    flip: float = Field(default=0.0, ge=0, le=1)
    brightness: float = Field(default=0.4, ge=0)
    contrast: float = Field(default=0.4, ge=0, lt=1)
    blur: float = Field(default=0.5, ge=0, le=1)
    noise: float = Field(default=0.1, ge=0)
    probe_steps: int = Field(default=300, ge=1)
    probe_lr: float = Field(default=1e-2, gt=0)
    probe_batch_size: int = Field(default=64, ge=1)

    def _pretrained(self, model: nn.Module, ctx: Context) -> nn.Sequential:
        """Draw the model anew, train its encoder on source images, and return the projector that trained along."""
        model.load_state_dict(ctx.fresh(head(model).out_features).state_dict())
        projector = create_projector(
            head(model).in_features, self.hidden, self.projection_size, ctx.generator("simclr", "projector")
        ).to(ctx.device)
        views = self._views(ctx, self.pretrain_batch_size, "simclr")
        optimizer = create_optimizer(chain(model.parameters(), projector.parameters()), "adam", self.pretrain_lr)
        set_rate = create_schedule(optimizer, "cosine", self.pretrain_steps)
        model.train()
        for step in range(1, self.pretrain_steps + 1):
            descend(optimizer, nt_xent(projector(features(model, next(views))), self.temperature), step)
            set_rate(step)
        return projector

    def _views(self, ctx: Context, batch_size: int, name: str) -> Iterator[Tensor]:
        """Yield two views of batch after batch of source images, [2 * n, 3, s, s], first views first."""
        assert ctx.source is not None
        generator = ctx.generator(name, "views")
        for x, _ in ctx.source.batches(batch_size, ctx.generator(name, "batches")):
            yield torch.cat([self._view(x, generator) for _ in range(2)])

    def _view(self, x: Tensor, generator: torch.Generator) -> Tensor:
        x = relit(cropped(x, self.zoom, self.flip, generator), self.brightness, self.contrast, generator)
        x = noisy(blurred(x, self.blur, generator), self.noise, generator)
        return x.contiguous(memory_format=torch.channels_last)

    def _probe(self, model: nn.Module, ctx: Context) -> None:
        """Fit the head on source labels while the encoder stands still; labels serve nothing else."""
        assert ctx.source is not None
        training = Training(
            optimizer="adam",
            lr=self.probe_lr,
            schedule="linear",
            steps=self.probe_steps,
            batch_size=self.probe_batch_size,
        )
        fit_head(model, ctx.source, training, ctx.generator("probe"))


def create_projector(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Sequential:
    """Return the two-layer network before the contrastive loss, drawn as torch draws linear layers."""
    layers = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for layer in layers:
        bound = layer.in_features**-0.5
        for tensor in (layer.weight, layer.bias):
            nn.init.uniform_(tensor, -bound, bound, generator=generator)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1])


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Return the mean CE of finding an image's other view among all other views, from z [2 * n, d], first views first.

    Logits are cosines over the temperature; with one image alone the loss is 0.
    """
    z = F.normalize(z, dim=1)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(own, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z) // 2))
