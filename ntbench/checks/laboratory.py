"""The small world in which methods are examined: two embedded domains, one pretrained model, and one way to run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ntbench.checks.watch import Traces, watching
from ntbench.engine.view import view_of
from ntbench.learn.fit import fit
from ntbench.learn.meter import Meter
from ntbench.learn.models import BlackBox, build, features, head, pack, unpack
from ntbench.method import Attack, Context, Defense, Method
from ntbench.tasks.data import Split, load_domain, nested_subset
from ntbench.types import Arch, Budget, Training

SAMPLES = 400
FEWER = 7
DAMAGE = 0.5
SPLITS = ("source", "target", "source_val", "target_val")
ARCH = Arch(name="cnns_bn")
PRETRAIN = Training(lr=2e-3, schedule="cosine", steps=100, batch_size=64)
BUDGET = Budget(steps=80, samples=2560, scored=(80,))


@dataclass(frozen=True)
class Trial:
    """How a run differs from the plain one, which grants everything; `classes` are those of the target domain."""

    repetition: int = 0
    global_seed: int = 92821
    train_mode: bool = True
    source: bool = True
    target: bool = True
    target_labels: bool = True
    pruned: bool = False
    damaged: bool = False
    classes: int = 10


@dataclass(frozen=True, eq=False)
class Observation:
    """What one run of a method did: its last model, what was spent at each yield, and what it left behind."""

    method: Method
    model: nn.Module
    fingerprint: str
    spent: tuple[tuple[int, int], ...]
    regrown: int
    overwritten: tuple[str, ...]
    traces: Traces


@dataclass(frozen=True, eq=False)
class World:
    """The data of the laboratory: what methods train and validate on, and target images to score them."""

    source: Split
    source_val: Split
    target: Split
    target_val: Split
    target_test: Split


@cache
def world() -> World:
    """Return digits -> digits_m at 8 pixels, cut to a few hundred training samples."""
    source, target = load_domain("digits", 8), load_domain("digits_m", 8)
    cut = [nested_subset(d.train, SAMPLES / len(d.train), torch.Generator().manual_seed(0)) for d in (source, target)]
    return World(cut[0], source.val, cut[1], target.val, target.test)


def pretrained(pruned: bool = False, damaged: bool = False) -> nn.Module:
    """Return a model that knows the source; pruned, half of its encoder is zero, damaged, all weights carry noise."""
    model = unpack(_pretrained_weights(), fresh(10))
    generator = torch.Generator().manual_seed(0)
    for weight in (p for p in model.parameters() if p.ndim > 1):
        if pruned and weight is not head(model).weight:
            weight.data.mul_(weight.abs() > weight.abs().median())
        if damaged:
            weight.data.add_(DAMAGE * weight.std() * torch.randn(weight.shape, generator=generator))
    return model


@cache
def _pretrained_weights() -> dict[str, Tensor]:
    model = build(ARCH, 10, seed=0)
    for _ in fit(model, world().source, PRETRAIN, torch.Generator().manual_seed(0)):
        pass
    return pack(model)


def budget(method: Method) -> Budget:
    """Return what a method may spend."""
    return BUDGET.times(method.times) if isinstance(method, Attack) else BUDGET


def fresh(classes: int) -> nn.Module:
    """Return a randomly initialised model of the laboratory's architecture."""
    return build(ARCH, classes, seed=1)


_observed: dict[tuple[int, Trial], Observation] = {}


def observe(method: Method, trial: Trial = Trial()) -> Observation:
    """Run a method once per process and trial and return what it did."""
    # The observation holds the method, so that its id is not given to another one.
    key = (id(method), trial)
    if key not in _observed:
        _observed[key] = run(method, trial)
    return _observed[key]


def run(method: Method, trial: Trial = Trial()) -> Observation:
    """Run a method under observation.

    Raises AssertionError where it hands over something else than a model.
    """
    released, ctx = pretrained(trial.pruned, trial.damaged), _granted(method, trial)
    model, ctx = _seen(method, released, ctx, trial)
    before, zeros = _copied(ctx), [p == 0 for p in model.parameters()]
    meter, spent, regrown = Meter(), [], 0
    with watching(method, trial.global_seed) as traces, meter:
        for stage in _stages(method, model.train(trial.train_mode), ctx):
            model = _checked(stage, method)
            spent.append((meter.steps, meter.samples))
            traces.note_settings()
            regrown = max(regrown, _regrown(model, zeros)) if trial.pruned else 0
    if not spent:
        raise AssertionError("attack() yields no model; yield the adapted model after every optimizer step")
    if isinstance(method, Attack) and method.on_features:
        model = _Whole(released, model)
    print_ = fingerprint(model)
    return Observation(method, model, print_, tuple(spent), regrown, _overwritten(before, ctx), traces)


def fingerprint(model: nn.Module) -> str:
    """Return a hash over the bytes of every weight."""
    state = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


@torch.inference_mode()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return what a model says in eval mode, [n, classes]."""
    return model.eval()(x)  # type: ignore[no-any-return]


def _granted(method: Method, trial: Trial) -> Context:
    target = _relabelled(world().target, trial)
    shared = Context(
        source=world().source if trial.source else None,
        target=target if trial.target else None,
        source_val=world().source_val if isinstance(method, Defense) and trial.source else None,
        target_val=_relabelled(world().target_val, trial) if trial.target and isinstance(method, Attack) else None,
        target_classes=trial.classes,
        budget=budget(method),
        seed=0,
        device=torch.device("cpu"),
        fresh=fresh,
    )
    return _copied(shared)


def _relabelled(data: Split, trial: Trial) -> Split:
    return Split(data.x, data.y % trial.classes if trial.target_labels else torch.full_like(data.y, -1))


class _Whole(nn.Module):
    """An encoder and the head that an attack on features hands over, as one model of images."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(features(self.encoder, x))  # type: ignore[no-any-return]


def _seen(method: Method, model: nn.Module, ctx: Context, trial: Trial) -> tuple[nn.Module, Context]:
    """Return what an attack gets to see of a model and of the target."""
    if not isinstance(method, Attack) or ctx.target is None or ctx.target_val is None:
        return model if not isinstance(method, Attack) or method.access.weights else BlackBox(model), ctx
    view = view_of(method, model, (ctx.target, ctx.target_val, ctx.target_val), (repr(trial), 1.0))
    return view.model, replace(ctx, target=view.subset, target_val=view.val if method.access.validation else None)


def _copied(ctx: Context) -> Context:
    def copy(split: Split | None) -> Any:
        return split and Split(split.x.clone(), split.y.clone())

    return replace(ctx, **{name: copy(getattr(ctx, name)) for name in SPLITS})


def _stages(method: Method, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    if isinstance(method, Attack):
        yield from islice(method.attack(model, ctx), ctx.budget.steps)
    elif isinstance(method, Defense):
        yield method.protect(model, ctx)


def _checked(stage: object, method: Method) -> nn.Module:
    if not isinstance(stage, nn.Module):
        verb = "protect() returns" if isinstance(method, Defense) else "attack() yields"
        raise AssertionError(f"{verb} {type(stage).__name__} and not a model; hand over the nn.Module itself")
    return stage


def _regrown(model: nn.Module, zeros: list[Tensor]) -> int:
    pairs = zip(model.parameters(), zeros, strict=False)
    return sum(int((p[zero] != 0).sum()) for p, zero in pairs if p.ndim > 1 and p.shape == zero.shape)


def _overwritten(before: Context, after: Context) -> tuple[str, ...]:
    return tuple(f"ctx.{name}" for name in SPLITS if _changed(getattr(before, name), getattr(after, name)))


def _changed(old: Split | None, new: Split | None) -> bool:
    if old is None or new is None:
        return False
    return new.x.requires_grad or not torch.equal(old.x, new.x) or not torch.equal(old.y, new.y)
