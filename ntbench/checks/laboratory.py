"""The small world in which methods are examined: two embedded domains, one pretrained model, and one way to run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ntbench.checks.watch import Traces, watching
from ntbench.engine.subject import SPLITS, Grant, attacked, global_seeds, released_head
from ntbench.learn.fit import fit
from ntbench.learn.models import build, encoded, features, head, pack, unpack
from ntbench.method import Attack, Context, Defense, Method
from ntbench.tasks.data import Split, learnt, load_domain, nested_subset
from ntbench.tasks.objective import objectives
from ntbench.types import Arch, Training, digest

SAMPLES = 400
FEWER = 7
DAMAGE = 0.5
PRETRAIN = Training(lr=2e-3, schedule="cosine", steps=100, batch_size=64)
ENDS = (20, 40, 80)


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
    """What one run of a method did: its last model, and what it left behind."""

    method: Method
    model: nn.Module
    fingerprint: str
    regrown: int
    overwritten: tuple[str, ...]
    traces: Traces


@dataclass(frozen=True, eq=False)
class World:
    """The laboratory of one objective: its network, and what methods train, validate and are scored on."""

    arch: Arch
    outputs: int
    source: Split
    source_val: Split
    target: Split
    target_val: Split
    target_test: Split


def world(method: Method) -> World:
    """Return digits -> digits_m at 8 pixels, cut to a few hundred training samples, for what a method is written."""
    return _world(method.objectives[0])


@cache
def _world(name: str) -> World:
    objective = objectives()[name]()
    source, target = (learnt(load_domain(domain, 8), objective) for domain in ("digits", "digits_m"))
    cut = [nested_subset(d.train, SAMPLES, torch.Generator().manual_seed(0)) for d in (source, target)]
    # As floats, which a method can write into and differentiate: those of bytes are copies of its own.
    held = [replace(s, held=s.x) for s in (cut[0], source.val, cut[1], target.val, target.test)]
    return World(objective.example, source.classes, *held)


def labelled(method: Method) -> bool:
    """Return whether what a method is written for has labels, of classes that may differ in number."""
    return world(method).source.objective.labelled


def pretrained(method: Method, pruned: bool = False, damaged: bool = False) -> nn.Module:
    """Return a model that knows the source; pruned, half of its encoder is zero, damaged, all weights carry noise."""
    model = unpack(_pretrained_weights(method.objectives[0]), fresh(method))
    generator = torch.Generator().manual_seed(0)
    for weight in (p for p in model.parameters() if p.ndim > 1):
        if pruned and weight is not head(model).weight:
            weight.data.mul_(weight.abs() > weight.abs().median())
        if damaged:
            weight.data.add_(DAMAGE * weight.std() * torch.randn(weight.shape, generator=generator))
    return model


@cache
def _pretrained_weights(name: str) -> dict[str, Tensor]:
    model = build(_world(name).arch, _world(name).outputs, seed=0)
    for _ in fit(model, _world(name).source, PRETRAIN, torch.Generator().manual_seed(0)):
        pass
    return pack(model)


def fresh(method: Method) -> nn.Module:
    """Return a randomly initialised model of the laboratory's architecture for the source."""
    return build(world(method).arch, world(method).outputs, seed=1)


_observed: dict[tuple[int, Trial], Observation] = {}


def observe(method: Method, trial: Trial = Trial()) -> Observation:
    """Run a method once per process and trial and return what it did."""
    # The observation holds the method, so that its id is not given to another one.
    key = (id(method), trial)
    if key not in _observed:
        _observed[key] = run(method, trial)
    return _observed[key]


@dataclass(frozen=True, eq=False)
class Watched(Grant):
    """A grant that remembers every context that it gave, beside what the context held then, and notes what is left."""

    train_mode: bool = True
    given: list[tuple[Context, Context]] = field(default_factory=list)
    traces: Traces = field(default_factory=Traces)

    @contextmanager
    def numerics(self) -> Iterator[None]:
        """Compute as in a run, and compare the global settings after every step of an attack."""
        with super().numerics():
            yield
            self.traces.note_settings()

    def model(self) -> nn.Module:
        """Return the model that the weights belong to, in the mode of the trial."""
        return super().model().train(self.train_mode)

    def context(self, steps: int) -> Context:
        """Return what a method sees."""
        held, given = super().context(steps), super().context(steps)
        self.given.append((held, given))
        return given


def run(method: Method, trial: Trial = Trial()) -> Observation:
    """Run a method under observation.

    Raises AssertionError where it hands over something else than a model.
    """
    released = pretrained(method, trial.pruned, trial.damaged)
    grant = _grant(method, released, trial)
    zeros = [p == 0 for p in released.parameters()]
    model, regrown = released, 0
    with watching(method, grant.traces):
        for stage in _stages(method, grant):
            model = _checked(stage, method)
            grant.traces.note_settings()
            grant.traces.note_seed(int(grant.key, 16) % 2**63)
            regrown = max(regrown, _regrown(model, zeros)) if trial.pruned else 0
    if isinstance(method, Attack) and method.on_features:
        model = _Whole(released, model)
    overwritten = {name for pair in grant.given for name in _overwritten(*pair)}
    return Observation(method, model, fingerprint(model), regrown, tuple(sorted(overwritten)), grant.traces)


def fingerprint(model: nn.Module) -> str:
    """Return a hash over the bytes of every weight."""
    state = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def shown(data: Split) -> Tensor:
    """Return all samples as a model is shown them, in one batch."""
    return data.whole(torch.Generator().manual_seed(0))[0]


@torch.inference_mode()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return what a model says in eval mode, [n, classes] for one that classifies."""
    return model.eval()(x)  # type: ignore[no-any-return]


def _grant(method: Method, released: nn.Module, trial: Trial) -> Watched:
    here = world(method)
    target = _relabelled(here.target, trial) if trial.target else None
    weights, defender = pack(released), isinstance(method, Defense)
    if isinstance(method, Attack) and method.on_features and target:
        weights, target = released_head(released), Split(encoded(released, target.x), target.y)
    return Watched(
        arch=here.arch,
        classes=here.outputs,
        weights=weights,
        source=here.source if trial.source else None,
        target=target,
        source_val=here.source_val if defender and trial.source else None,
        target_val=_relabelled(here.target_val, trial) if defender and trial.target else None,
        unlabelled=here.target.unlabelled() if isinstance(method, Attack) and method.access.pool else None,
        target_classes=trial.classes if here.source.objective.labelled else here.outputs,
        ends=ENDS,
        seed=0,
        fresh_seed=1,
        key=digest(trial.global_seed),
        precision="float32",
        device=torch.device("cpu"),
        objective=here.source.objective,
        train_mode=trial.train_mode,
    )


def _relabelled(data: Split, trial: Trial) -> Split:
    return replace(data, y=data.y % trial.classes) if trial.target_labels else data.unlabelled()


class _Whole(nn.Module):
    """An encoder and the head that an attack on features hands over, as one model of images."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(features(self.encoder, x))  # type: ignore[no-any-return]


def _stages(method: Method, grant: Grant) -> Iterator[Any]:
    if isinstance(method, Attack):
        yield from (snapshot.model for snapshot in attacked(method, grant))
    elif isinstance(method, Defense):
        with global_seeds(grant.key):
            yield method.protect(grant.model(), grant.context(0))


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
