"""Training a model on labelled samples: what fine-tuning attacks share, whatever they do before it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntbench.method import Attack, Context, Field, Fit, Optimizer, Schedule, Split, Training, head, reset_head

from ._layers import decayed, groups_of
from ._views import strong, weak

View = Literal["none", "weak", "strong"]
VIEWS = {"weak": weak, "strong": strong}


@dataclass(frozen=True, eq=False)
class Viewed(Split):
    """Samples of which every batch holds fresh views."""

    view: View

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (views of x, y) without end."""
        for x, y in super().batches(batch_size, generator):
            yield VIEWS[self.view](x, generator), y


class Tuning(Attack):
    """The hyper-parameters of training on labelled samples, and that training."""

    optimizer: Optimizer = "momentum"
    lr: float = Field(default=1e-2, gt=0)
    schedule: Schedule = "cooldown"
    warmup: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    augment: View = "none"
    batch_size: int = Field(default=32, ge=1)

    def tuning(
        self,
        model: nn.Module,
        ctx: Context,
        data: Split | None = None,
        parameters: Sequence[Tensor] | None = None,
        factors: Mapping[Tensor, float] | None = None,
        **options: Any,
    ) -> Fit:
        """Return a training of all or some parameters on the target samples, or on other data.

        `factors` multiply the rates of some parameters; the options are those of a `Fit`. A head for another number of
        classes than the target's is drawn anew.
        """
        renew_misfit(model, ctx)
        data = data or ctx.target
        assert data is not None
        data = data if self.augment == "none" else Viewed(data.x, data.y, self.augment)
        trained = list(model.parameters() if parameters is None else parameters)
        rates = dict.fromkeys(trained, 1.0) if self.layer_decay == 1 else decayed(model, trained, self.layer_decay)
        rates |= {parameter: rates[parameter] * factor for parameter, factor in (factors or {}).items()}
        groups = groups_of(trained, rates, self.lr)
        fit = Fit(model, data, self.training(ctx.steps), ctx.generator("batches"), groups)
        return replace(fit, **options)

    def training(self, steps: int) -> Training:
        """Return the hyper-parameters of so many steps."""
        return Training(
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            steps=steps,
            batch_size=self.batch_size,
        )


def renew_misfit(model: nn.Module, ctx: Context) -> None:
    """Draw the head anew where it has another number of classes than the target."""
    if head(model).out_features != ctx.target_classes:
        reset_head(model, ctx.target_classes, ctx.generator("head"))


def zeros_of(model: nn.Module) -> Callable[[], None]:
    """Return a function that sets every weight to zero that is zero now."""
    zeros = [(p, p == 0) for p in model.parameters() if p.ndim > 1]

    @torch.no_grad()
    def clear() -> None:
        for parameter, zero in zeros:
            parameter.masked_fill_(zero, 0.0)

    return clear
