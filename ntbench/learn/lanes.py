"""Lanes: fits of one kind that train side by side as one stacked model, each on its own data, batches and rates.

All parameters that train lie in one flat tensor, behind one another and of each the lanes, so that whatever works
element by element is one operation, however many lanes there are; the models of the fits are views of it. Lanes do not
mix: the gradient of the summed losses is each lane's own, and what is not finite in one stays there. Only the order of
sums differs from a fit alone: after ten steps in double precision weights agree to 1e-9 of a tensor's largest, in
single precision to 1e-3 after twenty, but where an optimizer divides by gradients that are next to nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim.optimizer import Optimizer

from ntbench.learn.fit import EXPLODED, Course, Fit, Rates, check_loss
from ntbench.learn.meter import Meter, counted
from ntbench.learn.optim import create_optimizer
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.data import Split, batch_indices
from ntbench.tasks.objective import SCORING_BATCH
from ntbench.tasks.pixels import floats

COUPLED = ("sgd", "momentum", "nesterov", "adam", "rmsprop", "rmsprop_momentum")
"""Optimizers that work element by element, whose step is their rate times something, with decay in the gradient."""
DECOUPLED = ("adamw",)
"""The same, with decay beside the gradient."""
AHEAD = 64
"""Steps of which the batches are drawn, and brought to the device, at once."""


def lane_key(fit: Fit) -> Hashable | None:
    """Return what fits must have in common to share lanes, or None for one that trains alone; it is in train mode then.

    They may differ in weights, samples, batches, and in every parameter's rate and decay. What a step does may depend
    on nothing else: no loss or samples of one's own, no random numbers, an optimizer that works element by element.
    """
    plan = fit.training
    plain = fit.loss is None and fit.outcome is None and type(fit.data) is Split and fit.data.objective == CLASSIFYING
    rates = _rates(fit)
    if not plain or plan.optimizer not in (*COUPLED, *DECOUPLED) or rates is None or not _stackable(fit):
        return None
    shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in _tensors(fit.model).items())
    same = plan.model_copy(update={"lr": 1.0, "weight_decay": 0.0}).model_dump_json()
    return str(fit.model), shapes, tuple(rates), same, fit.data.held.shape, fit.data.held.dtype


class Lanes(Course):
    """Fits of one `lane_key` as one training; their models are always what the lanes hold.

    A lane whose loss or outputs are not finite, or whose loss explodes, has its reason in `failed`; it goes on
    with the others, and stays failed.
    """

    def __init__(self, fits: Sequence[Fit]) -> None:
        """Stack the models of fits, which are views from here on."""
        self.fits, self.training = fits, fits[0].training
        self.failed = [""] * len(fits)
        rates = [_rates(fit) or {} for fit in fits]
        states = [_tensors(fit.model) for fit in fits]
        self._still = {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}
        self._trained = {name: self._still.pop(name) for name in rates[0]}
        self._sizes = [tensor.numel() for tensor in self._trained.values()]
        self._flat = _level(self._trained).requires_grad_()
        self._rate, self._decay = (
            _level({name: _spread([lane[name][k] for lane in rates], self._trained[name]) for name in rates[0]})
            for k in (0, 1)
        )
        self._offset = torch.zeros_like(self._flat)
        held, y = torch.cat([fit.data.held for fit in fits]), torch.cat([fit.data.y for fit in fits])
        self._pool = replace(fits[0].data, held=held, y=y)
        self._losses: list[Tensor] = []
        self._bind()

    def climb(self, ends: Sequence[int], meter: Meter) -> Iterator[int]:
        """Train all lanes as `Fit.climb` does one, without raising; the meter is charged with what one lane takes."""
        self._meter = meter
        batch = self.fits[0].data.subset(torch.arange(self.fits[0].batch_size, device=self._flat.device))
        self._flops = counted(self.fits[0].model.train(), (batch.x,))
        yield from super().climb(ends, meter)

    def begin(self) -> tuple[Optimizer, Rates, Iterator[Any]]:
        """Put the models in train mode and return their optimizer, what sets its rate after a step, and the batches."""
        for fit in self.fits:
            fit.model.train()
        # It moves an offset from where the weights stand, at a rate of 1, which lanes and layers multiply by theirs.
        optimizer = create_optimizer([self._offset], self.training.optimizer, lr=1.0)
        return optimizer, self.fits[0].schedule(optimizer), self._batches([fit.generator for fit in self.fits])

    @torch.inference_mode()
    def correct(self, data: Split) -> Tensor:
        """Return which images each lane classifies rightly in eval mode, bool [lanes, n] on the CPU, in one pass.

        Rows of lanes that fail here or before mean nothing.
        """
        model = self.fits[0].model.eval()
        right, finite = [], []
        for images, y in zip(data.held.split(SCORING_BATCH), data.y.split(SCORING_BATCH), strict=True):
            logits = vmap(self._answer, in_dims=(0, None))(self._state(), floats(images))
            right.append(logits.argmax(2) == y)
            finite.append(logits.isfinite().flatten(1).all(1))
        model.train()
        for lane in (~torch.stack(finite).all(0)).nonzero().flatten().tolist():
            self._fail(lane, "the model's logits are not finite")
        return torch.cat(right, 1).cpu()

    def _answer(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.fits[0].model, state, (x,))  # type: ignore[no-any-return]

    def _loss(self, state: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return self._pool.objective.loss(self._answer(state, x), y)

    def _advance(self, optimizer: Optimizer, batches: Iterator[Any], step: int) -> None:
        batch = self._pool.subset(next(batches))
        x, y = batch.x.unflatten(0, (len(self.fits), -1)), batch.y.unflatten(0, (len(self.fits), -1))
        losses = vmap(self._loss, randomness="error")(self._state(), x, y)
        (gradient,) = torch.autograd.grad(losses.sum(), self._flat)
        self._losses.append(losses.detach())
        self._move(optimizer, gradient)
        for fit in self.fits:
            fit.after_step()

    @torch.no_grad()
    def _move(self, optimizer: Optimizer, gradient: Tensor) -> None:
        coupled = self.training.optimizer in COUPLED
        self._offset.grad = gradient.addcmul_(self._flat, self._decay) if coupled else gradient
        self._offset.zero_()
        optimizer.step()
        if not coupled:
            self._offset.addcmul_(self._flat, self._decay, value=-optimizer.param_groups[0]["lr"])
        self._flat.addcmul_(self._offset, self._rate)

    def _steps(
        self, optimizer: Optimizer, batches: Iterator[Any], steps: Sequence[int], set_rates: Rates
    ) -> Iterator[int]:
        start = time.perf_counter()
        yield from super()._steps(optimizer, batches, steps, set_rates)
        if self._losses:
            # The only place where the device is waited for.
            for lane, losses in enumerate(torch.stack(self._losses, 1).tolist()):
                self._try(lane, _check_losses, losses, steps)
        self._losses = []
        seconds = (time.perf_counter() - start) / len(self.fits)
        taken = len(steps)
        self._meter.add(taken * self.fits[0].batch_size, taken * self._flops, taken, seconds)

    def _try(self, lane: int, check: Callable[..., None], *given: Any) -> None:
        try:
            check(*given)
        except FloatingPointError as error:
            self._fail(lane, str(error))

    def _fail(self, lane: int, reason: str) -> None:
        self.failed[lane] = self.failed[lane] or reason

    def _aside(self, end: int) -> Iterator[Any]:
        return self._batches([fit.aside(end) for fit in self.fits])

    def _batches(self, generators: Sequence[torch.Generator]) -> Iterator[Tensor]:
        """Yield places in the pool, int64 [lanes x b], as each lane's generator gives them for its own samples."""
        data, size = self.fits[0].data, self.fits[0].batch_size
        streams = [batch_indices(len(data), size, generator, generator.device) for generator in generators]
        first = torch.arange(len(streams)).unsqueeze(1) * len(data)
        while True:
            drawn = torch.stack([torch.stack([*islice(stream, AHEAD)]) for stream in streams], 1)
            yield from (drawn + first).flatten(1).to(self._flat.device)

    def _held(self, optimizer: Optimizer) -> Any:
        still = {name: tensor.clone() for name, tensor in self._still.items()}
        return self._flat.detach().clone(), still, copy.deepcopy(optimizer.state_dict())

    @torch.no_grad()
    def _back(self, held: Any, optimizer: Optimizer) -> None:
        flat, still, state = held
        self._flat.copy_(flat)
        for name, tensor in still.items():
            self._still[name].copy_(tensor)
        optimizer.load_state_dict(state)

    def _state(self) -> dict[str, Tensor]:
        """Return all stacked tensors by name, those that train as views of the flat one."""
        parts = zip(self._trained.items(), self._flat.split(self._sizes), strict=True)
        return self._still | {name: part.view_as(tensor) for (name, tensor), part in parts}

    @torch.no_grad()
    def _bind(self) -> None:
        for name, stacked in self._state().items():
            for lane, fit in enumerate(self.fits):
                _tensors(fit.model)[name].data = stacked[lane]


def _check_losses(losses: Sequence[float], steps: Sequence[int]) -> None:
    for value, step in zip(losses, steps, strict=True):
        check_loss(value, step, EXPLODED)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _level(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _spread(values: Sequence[float], like: Tensor) -> Tensor:
    """Return a lane's value at every element of its part of a stacked tensor."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).repeat_interleave(like[0].numel())


def _rates(fit: Fit) -> dict[str, tuple[float, float]] | None:
    """Return rate and decay of every parameter that trains, by name in the model's order; None for other groups."""
    named = dict(fit.model.named_parameters())
    given: Any = list(named.values()) if fit.parameters is None else fit.parameters
    if not isinstance(given, list | tuple):
        return None
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    found: dict[Tensor, tuple[float, float]] = {}
    for group in groups:
        if group.keys() - {"params", "lr", "weight_decay"}:
            return None
        rates = group.get("lr", fit.training.lr), group.get("weight_decay", fit.training.weight_decay)
        found |= dict.fromkeys(group["params"], rates)
    if found.keys() - {*named.values()}:
        return None
    return {name: found[p] for name, p in named.items() if p in found and p.requires_grad} or None


def _stackable(fit: Fit) -> bool:
    """Return whether a model can be called stacked, and draws nothing at random, by trying it on two samples."""
    state = {name: torch.stack([tensor.detach()] * 2) for name, tensor in _tensors(fit.model.train()).items()}
    x = fit.data.subset(torch.arange(min(2, len(fit.data)), device=fit.data.y.device)).x
    try:
        vmap(lambda own, x: functional_call(fit.model, own, (x,)), randomness="error")(state, torch.stack([x, x]))
    except (RuntimeError, ValueError):
        return False
    return True
