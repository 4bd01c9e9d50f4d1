"""Small models of one architecture trained at once, which pays on an accelerator: one pass computes all gradients."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ntbench.engine.bench import Bench
from ntbench.engine.view import View
from ntbench.learn.train import EXPLODED, Fit, Meter, check_loss
from ntbench.method import Attack
from ntbench.registry import registry
from ntbench.types import Budget, Cell, Protection, Status, digest

Stacks = dict[str, Tensor]


def likeness(fit: Fit) -> dict[str, object]:
    """Return what trainings must have in common to run together, by name."""
    state = tuple((name, tensor.shape, tensor.dtype) for name, tensor in fit.model.state_dict().items())
    return {
        "architecture or class count": (str(fit.model), state),
        "frozen parameters": tuple(p.requires_grad for p in fit.model.parameters()),
        "shape of a sample": fit.data.x.shape[1:],
        "batch size": fit.batch_size,
        "number of steps": fit.training.steps,
        "loss": fit.loss,
    }


def fit_together(fits: Sequence[Fit]) -> Iterator[dict[int, FloatingPointError]]:
    """Train models in lockstep and yield, after every step of all, the errors of those that dropped out, by place.

    Each has its own batches, optimizer and schedule, and its loss is watched as `Fit.run` does; the others go on
    without it. At every yield each model is a module as ever; its weights are views of a tensor that holds those of
    all. Dropout draws from torch's global generator, for each model differently. ValueError names what differs.
    """
    _check_alike(fits)
    stacks = _stacked([fit.model for fit in fits])
    learning = {name: stacks.pop(name) for name in rehearsed(fits[0]).learning}
    gradients = _gradients([fit.model for fit in fits], learning)

    def loss_of(learning: Stacks, fixed: Stacks, x: Tensor, y: Tensor) -> Tensor:
        return fits[0].loss(functional_call(fits[0].model, learning | fixed, (x,)), y)

    descents = vmap(grad_and_value(loss_of), randomness="different")
    begun = [fit.begin() for fit in fits]
    failed: dict[int, FloatingPointError] = {}
    for step in range(1, fits[0].training.steps + 1):
        drawn = [next(batches) for _, _, batches in begun]
        x, y = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        found, losses = descents(learning, stacks, x, y)
        for name, gradient in gradients.items():
            gradient.copy_(found[name])
        for place, loss in enumerate(losses.tolist()):
            optimizer, set_rates, _ = begun[place]
            try:
                check_loss(loss, step, EXPLODED)
            except FloatingPointError as error:
                failed.setdefault(place, error)
            if place not in failed:
                optimizer.step()
                fits[place].after_step()
                set_rates(step)
        yield dict(failed)
        if len(failed) == len(fits):
            return


def _check_alike(fits: Sequence[Fit]) -> None:
    first, *others = map(likeness, fits)
    differing = [name for name, value in first.items() if any(other[name] != value for other in others)]
    if differing:
        raise ValueError(f"trainings that run together must not differ in their {', '.join(differing)}")


def _stacked(models: Sequence[nn.Module]) -> Stacks:
    """Return the parameters and buffers of models as one tensor a name, of which their own become views."""
    states = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in models]
    stacks = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
    for place, state in enumerate(states):
        for name, tensor in state.items():
            tensor.data = stacks[name][place]
    return stacks


def _gradients(models: Sequence[nn.Module], learning: Stacks) -> Stacks:
    """Return zeros beside stacked parameters, of which the models' gradients become views."""
    # Fused optimizers want gradients that lie in memory as the parameters do; those of `vmap` need not.
    gradients = {name: torch.zeros_like(stack) for name, stack in learning.items()}
    for place, model in enumerate(models):
        for name, gradient in gradients.items():
            model.get_parameter(name).grad = gradient[place]
    return gradients


@dataclass(frozen=True)
class Rehearsal:
    """What one step of a training costs by itself, and the names of the parameters that get a gradient."""

    samples: int
    flops: int
    learning: tuple[str, ...]


def rehearsed(fit: Fit) -> Rehearsal:
    """Go through one step of a training on shapes alone."""
    model = copy.deepcopy(fit.model).to("meta").train()
    x, y = (part[: fit.batch_size].to("meta") for part in (fit.data.x, fit.data.y))
    with Meter() as meter:
        loss = fit.loss(model(x), y)
    loss.backward()
    learning = tuple(name for name, p in model.named_parameters() if p.grad is not None)
    return Rehearsal(meter.samples, meter.flops, learning)


def kinship(cell: Cell) -> str:
    """Return what cells share that are likely to train together, or an empty string where a cell has to train alone.

    It tells before anything is computed; `likeness` decides.
    """
    attack: Attack = registry.get("attack", cell.attack.name)(**cell.attack.params)
    # `vmap` has no batch norm of mixed precision.
    if not attack.is_one_fit or cell.precision != "float32":
        return ""
    shared = cell.model_dump(mode="json", include={"task", "arch", "budget"})
    return digest([shared, attack.on_features, attack.times, cell.attack.params.get("batch_size")])


@dataclass(eq=False)
class Lane:
    """A cell that stands ready to train beside others, and what came of it; without a status it is not finished."""

    bench: Bench
    protection: Protection
    view: View
    fit: Fit
    budget: Budget
    step: Rehearsal
    flops: int
    """What getting ready cost, as do the seconds."""
    seconds: float
    rows: list[tuple[float, ...]] = field(default_factory=list)
    status: Status | None = None
    error: str = ""

    @property
    def likeness(self) -> object:
        """Return what lanes must share to train together."""
        return tuple(likeness(self.fit).values())

    def advance(self, step: int, seconds: float, failure: FloatingPointError | None) -> None:
        """Note a failure, or add a row where one is due: the steps cost what they cost a model that trains alone."""
        try:
            if failure:
                raise failure
            if step in self.budget.scored or step == self.fit.training.steps:
                costs = step * self.step.samples, self.flops + step * self.step.flops, self.seconds + seconds
                self.rows.append((step, *costs, *self.bench.accuracies(step, self.view.model, self.view)))
        except FloatingPointError as error:
            self.status, self.error = "diverged", str(error)


def prepared(bench: Bench, weights: dict[str, Tensor], protection: Protection) -> Lane | None:
    """Return a cell made ready, or None where its attack is no training within the budget of the model it gets."""
    attack, view, ctx = bench.faced(weights)
    with bench.seeded(), Meter() as meter, bench.numerics():
        fit = attack.fit_of(view.model, ctx)
    if fit is None or fit.model is not view.model:
        return None
    step, steps = rehearsed(fit), fit.training.steps
    if steps > ctx.budget.steps or steps * step.samples > ctx.budget.samples:
        return None
    return Lane(bench, protection, view, fit, ctx.budget, step, view.flops + meter.flops, meter.seconds)


def train_lanes(lanes: Sequence[Lane]) -> None:
    """Train cells in lockstep, score each where it is due, and say of each how it ended.

    Every cell takes an equal share of the seconds.
    """
    spent, first = 0.0, lanes[0].bench
    with first.seeded():
        steps = fit_together([lane.fit for lane in lanes])
        for step in range(1, lanes[0].fit.training.steps + 1):
            start = time.perf_counter()
            with first.numerics():
                failed = next(steps, {})
            spent += time.perf_counter() - start
            for place, lane in enumerate(lanes):
                if not lane.status:
                    lane.advance(step, spent / len(lanes), failed.get(place))
    for lane in lanes:
        lane.status = lane.status or "ok"
