"""Training a model on labelled target samples: what fine-tuning attacks share, whatever they do before it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ntbench.method import Attack, Context, Field, Fit, Optimizer, Schedule, Split, Training, head, reset_head

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
    schedule: Schedule = "linear"
    warmup: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    augment: View = "none"
    batch_size: int = Field(default=32, ge=1)
    steps: int | None = Field(default=None, ge=1)

    def tune(self, model: nn.Module, *given: Any, **options: Any) -> Iterator[nn.Module]:
        """Run the training that `tuning` returns for the same arguments, and yield the model after every step."""
        for _ in self.tuning(model, *given, **options).run():
            yield model

    def tuning(
        self,
        model: nn.Module,
        ctx: Context,
        data: Split | None = None,
        parameters: Sequence[Tensor] | None = None,
        after_step: Callable[[], None] = lambda: None,
        spent: int = 0,
    ) -> Fit:
        """Return a training of all or some parameters on the target samples, or on other data.

        `spent` steps of the budget are gone already. A head for another number of classes than the target's is drawn
        anew.
        """
        renew_misfit(model, ctx)
        data = data or ctx.target
        assert data is not None
        data = data if self.augment == "none" else Viewed(data.x, data.y, self.augment)
        training = self.training(self.granted(ctx) - spent)
        trained = list(model.parameters() if parameters is None else parameters)
        groups = layer_groups(model, trained, self.lr, self.layer_decay) if self.layer_decay < 1 else trained
        return Fit(model, data, training, ctx.generator("batches"), groups, after_step=after_step)

    def granted(self, ctx: Context) -> int:
        """Return how many steps the attack takes: its own number of them, but no more than the budget has."""
        return min(self.steps or ctx.budget.steps, ctx.budget.steps)

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


def layer_groups(model: nn.Module, trained: Sequence[Tensor], lr: float, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups whose rates fall by a factor from each layer with trained weights to the one before it.

    Layers come as the model registers them, and what belongs to no layer, such as a position embedding, comes first.
    """
    chosen = set(trained)
    layers = [[p for p in m.parameters(recurse=False) if p in chosen] for m in model.modules()]
    layers = [layer for layer in layers if layer]
    return [{"params": layer, "lr": lr * decay ** (len(layers) - 1 - k)} for k, layer in enumerate(layers)]


def zeros_of(model: nn.Module) -> Callable[[], None]:
    """Return a function that sets every weight to zero that is zero now."""
    zeros = [(p, p == 0) for p in model.parameters() if p.ndim > 1]

    @torch.no_grad()
    def clear() -> None:
        for parameter, zero in zeros:
            parameter.masked_fill_(zero, 0.0)

    return clear
