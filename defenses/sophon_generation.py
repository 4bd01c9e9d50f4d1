"""SOPHON for generation: first-order meta-learning of weights from which a denoiser does not learn the target.

Paper: Deng et al., IEEE S&P 2024, "SOPHON: Non-Fine-Tunable Learning to Restrain Task Transferability", its denoising
diffusion. Each loop simulates an attacker on a copy of the model, theta_{k+1} = theta_k - step(grad |eps - eps_hat|^2),
and takes one Adam step along the mean over every second k of grad L(query_k; theta_{k+1}); steps on source follow. L is
denial of service, |eps_hat|^2 to 0 (`dos`), or the error made large: -|eps - eps_hat|^2, an image's bounded at `bound`
(`mse`), or its logarithm (`log`).

Deviations: query time steps are those of `times` (the public code trains, protects and tests at t = 1 alone: times=[1,
2] in the suite's objective), and attackers train at all. They are drawn from several optimizers at rates uniform in the
logarithm, and with probability `reinit` the copy's output layer is drawn anew, with probability `redraw` all layers
behind a random one; the gradient of what was drawn anew is dropped. Without them a new decoder breaks the protection.
The public `mse` has no bound. `final_steps` on source alone, with a rate that falls to 0, end it; what is released must
be within `tolerance` of the start on source validation data.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import (
    Context,
    Defense,
    Denoising,
    Field,
    Split,
    Training,
    create_optimizer,
    descend,
    fit,
    head,
    register,
)

from ._guard import TOLERANCE, SourceGuard
from ._meta import (
    Attacker,
    Batches,
    Loss,
    attackers_copy,
    check_attackers,
    drawn_attacker,
    linear,
    weighted_sum,
)

EVERY = 2
"""A query follows every second step of an attacker."""


@register
class SophonGeneration(Defense):
    """Alternate suppression of simulated attackers with training on source."""

    name = "sophon_generation"
    paper = "https://arxiv.org/abs/2404.12699"
    objectives = ("denoising",)
    needs_target = True
    quick = {"loops": 2, "inner_steps": 4, "source_steps": 2, "final_steps": 10, "batch_size": 16, "tolerance": 0.5}

    loss: Literal["dos", "mse", "log"] = "log"
    times: tuple[int, int] = (0, 500)
    bound: float = Field(default=2.0, gt=0)
    loops: int = Field(default=60, ge=1)
    inner_steps: int = Field(default=20, ge=EVERY)
    attackers: tuple[Attacker, ...] = Field(default=(("adam", 1e-3, 3e-3),), min_length=1)
    reinit: float = Field(default=0.25, ge=0, le=1)
    redraw: float = Field(default=0.25, ge=0, le=1)
    lr: float = Field(default=5e-3, gt=0)
    clip: float = Field(default=5.0, gt=0)
    source_steps: int = Field(default=12, ge=0)
    source_lr: float = Field(default=2e-3, gt=0)
    final_steps: int = Field(default=1300, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=64, ge=1)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        check_attackers(self.attackers)
        return self

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model after all loops and the last steps on source."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance, "more `final_steps`, fewer `loops` or a lower `lr`")
        source = ctx.source.batches(self.batch_size, ctx.generator("source"))
        target = ctx.target.batches(self.batch_size, ctx.generator("target"))
        query = at_times(ctx.target, self.times).batches(self.batch_size, ctx.generator("query"))
        chance = ctx.generator("attackers")
        suppress = create_optimizer(model.parameters(), "adam", self.lr)
        reinforce = create_optimizer(model.parameters(), "adam", self.source_lr)
        model.train()
        for _ in range(self.loops):
            self._suppress(model, suppress, target, query, chance)
            for step in range(1, self.source_steps + 1):
                x, noise = next(source)
                descend(reinforce, F.mse_loss(model(x), noise), step)
        self._finish(model, ctx)
        guard.insist()
        return model

    def _suppress(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        target: Batches,
        query: Batches,
        chance: torch.Generator,
    ) -> None:
        """Take one step against one simulated attack."""
        clone, shared, own = attackers_copy(model, head(model).out_features, self.reinit, chance, self.redraw)
        attacker = create_optimizer(clone.parameters(), *drawn_attacker(self.attackers, chance))
        gradients = []
        for step in range(1, self.inner_steps + 1):
            x, noise = next(target)
            descend(attacker, F.mse_loss(clone(x), noise), step)
            if step % EVERY == 0:
                x, noise = next(query)
                gradients.append(list(torch.autograd.grad(self._loss(clone(x), noise), shared)))
        total = weighted_sum(shared, iter(gradients), [1 / len(gradients)] * len(gradients))
        descend(optimizer, linear(own, total), 1, self.clip)

    @property
    def _loss(self) -> Loss:
        losses: dict[str, Loss] = {"dos": silence, "mse": bounded_error(self.bound), "log": log_error}
        return losses[self.loss]

    def _finish(self, model: nn.Module, ctx: Context) -> None:
        assert ctx.source is not None
        training = Training(lr=self.source_lr, schedule="linear", steps=self.final_steps, batch_size=self.batch_size)
        for _ in fit(model, ctx.source, training, ctx.generator("final")):
            pass


def at_times(data: Split, times: tuple[int, int]) -> Split:
    """Return samples whose batches have time steps from the first of two to below the second."""
    assert isinstance(data.objective, Denoising)
    return replace(data, objective=data.objective.within(*times))


def silence(outputs: Tensor, noise: Tensor) -> Tensor:
    """Return the mean square of the predicted noise, 0 where nothing is predicted."""
    return outputs.square().mean()


def log_error(outputs: Tensor, noise: Tensor) -> Tensor:
    """Return minus the logarithm of the mean squared error."""
    return -F.mse_loss(outputs, noise).log()


def bounded_error(bound: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what gives minus the mean squared error, in which no image counts for more than a bound."""

    def loss(outputs: Tensor, noise: Tensor) -> Tensor:
        each = (outputs - noise).square().flatten(1).mean(dim=1)
        return -each.clamp_max(bound).mean()

    return loss
