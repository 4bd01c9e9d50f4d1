"""Foreign code at arm's length: a process of its own holds what it is granted, and a watchdog outside ends it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ntbench.domains import PARTS, Raw
from ntbench.engine import sandbox
from ntbench.engine.frames import BrokenLineError, Message, receive, send, tensors_of
from ntbench.engine.nursery import end, forked
from ntbench.engine.subject import SPLITS, Grant, Snapshot, Weights
from ntbench.errors import ForeignError, UnusableError, UserError
from ntbench.learn.meter import Cost
from ntbench.learn.models import Head, unpack
from ntbench.registry import registry
from ntbench.sources import source_file
from ntbench.tasks.data import Split
from ntbench.types import Arch, MethodSpec

TALK_SECONDS = 60.0
"""What importing a file and answering a question may take."""
BUILD_SECONDS = 3600.0
"""What building the images of a domain may take."""
SLACK = 2**20
MOST_COUNTED = 2**53
"""Above what any method can have done; sums of such numbers stay exact."""
FAILURES: dict[str, type[Exception]] = {
    "refused": UserError,
    "unusable": UnusableError,
    "diverged": FloatingPointError,
}


@dataclass(frozen=True)
class Bounds:
    """What a child may take."""

    seconds: float = TALK_SECONDS
    memory_mb: int = 8192


class Line:
    """One child, its line, and how long it may take to answer."""

    def __init__(self, bounds: Bounds, files: tuple[str, ...]) -> None:
        """Fork a child, which takes in these plug-ins, and in a sandbox sees no other."""
        self.bounds, self.files = bounds, files
        self.nursery, self.child, self.line = forked(bounds.memory_mb, files if sandbox.confined() else ())

    def ask(self, request: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
        """Send a request, from which on the time counts."""
        # The first fork waits for the nursery's imports, which are no fault of the method's.
        self._deadline = time.monotonic() + self.bounds.seconds
        try:
            send(self.line, {"plugins": self.files, "path": _path()} | request, tensors, self._watch)
        except BrokenLineError as broken:
            raise _ended(broken) from None

    def answer(self, most: int = 0) -> Message:
        """Return the next answer; raises what the child says went wrong, and what the watchdog found."""
        try:
            facts, tensors = receive(self.line, most + SLACK, self._watch)
        except BrokenLineError as broken:
            raise _ended(broken) from None
        status, reason = str(facts.get("status")), str(facts.get("error", ""))
        if status not in ("ok", "snapshot"):
            raise FAILURES.get(status, ForeignError)(reason or f"the method answers {status!r}")
        return facts, tensors

    def _watch(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"took longer than {self.bounds.seconds:g} seconds")
        if _resident_mb(self.child) > self.bounds.memory_mb + _resident_mb(self.nursery.pid):
            raise MemoryError(f"out of memory: more than {self.bounds.memory_mb} MB")


def _ended(broken: BrokenLineError) -> ForeignError:
    return ForeignError(f"the process of the method ended: {broken}")


def of(kind: str, name: str) -> tuple[str, ...]:
    """Return the plug-in that a child needs for a method: its own file, so that no other one's code is beside it."""
    cls = registry.held(kind, name)
    file = source_file(cls) if cls else ""
    return (file,) if file in registry.plugins else ()


@contextmanager
def child(bounds: Bounds, files: tuple[str, ...]) -> Iterator[Line]:
    """Give a child that takes in these plug-ins for the length of a block; it and what it started end with it."""
    line = Line(bounds, files)
    try:
        yield line
    finally:
        end(line.child)
        line.line.close()
        line.nursery.sweep(line.child)


def protect(spec: MethodSpec, grant: Grant, bounds: Bounds) -> tuple[Weights, Cost]:
    """Return what a foreign defense releases, and what it says that it cost."""
    with child(bounds, of(spec.kind, spec.name)) as line:
        line.ask({"ask": "protect", **_method(spec), "grant": _facts(grant)}, _tensors(grant))
        facts, weights = line.answer(most=_size(grant))
        return weights, _cost(facts)


def attack(spec: MethodSpec, grant: Grant, bounds: Bounds, on_features: bool) -> Iterator[Snapshot]:
    """Yield what a foreign attack has at every budget, loaded into a fresh model of the declared architecture.

    Raises ValueError where weights do not fit it, and RuntimeError for budgets that are not asked for.
    """
    ends = iter(grant.ends)
    with child(bounds, of(spec.kind, spec.name)) as line:
        line.ask({"ask": "attack", **_method(spec), "grant": _facts(grant)}, _tensors(grant))
        while True:
            facts, weights = line.answer(most=_size(grant))
            if facts["status"] == "ok":
                return
            step = facts.get("step")
            if step not in set(ends):
                raise RuntimeError(f"the method tells of a budget of {step!r} steps, which is not among its budgets")
            ends = iter([other for other in grant.ends if other > step])
            choice = str(facts.get("choice", ""))[:200]
            model = _loaded(weights, grant, on_features)
            yield Snapshot(step, _cost(facts), _whole(facts.get("paid")), model, choice)


def refuses(spec: MethodSpec, grant: dict[str, Any], bounds: Bounds = Bounds()) -> str:
    """Return why a foreign attack does not take on a defense, or an empty string."""
    return _reason("refuses", spec, grant, bounds)


def unfit(spec: MethodSpec, arch: Arch, bounds: Bounds = Bounds()) -> str:
    """Return why a foreign attack cannot work on an architecture, or an empty string."""
    return _reason("unfit", spec, {"arch": arch.model_dump(mode="json")}, bounds)


def _reason(ask: str, spec: MethodSpec, told: dict[str, Any], bounds: Bounds) -> str:
    with child(bounds, of(spec.kind, spec.name)) as line:
        line.ask({"ask": ask, **_method(spec), **told})
        return str(line.answer()[0].get("reason", ""))


def describe(file: str) -> list[dict[str, Any]]:
    """Return what the methods of a plug-in file say of themselves; an empty name stands for all installed ones."""
    # Of installed packages, which an empty name means, there is no file to see.
    with _explained(f"plug-in {file!r}"), child(Bounds(), (file,) if file else ()) as line:
        line.ask({"ask": "describe", "file": file})
        return list(line.answer()[0]["methods"])


def spec(kind: str, name: str, params: dict[str, Any], label: str) -> tuple[MethodSpec, dict[str, Any]]:
    """Return the recipe of a foreign method and what holds for it; raises UserError on parameters that it refuses."""
    with _explained(f"{kind} {name!r}"), child(Bounds(), of(kind, name)) as line:
        line.ask({"ask": "spec", "kind": kind, "name": name, "params": params, "label": label})
        facts, _ = line.answer()
        return MethodSpec.model_validate(facts["spec"]), dict(facts["traits"])


def build(name: str, image_size: int, bounds: Bounds = Bounds(BUILD_SECONDS)) -> Raw:
    """Return the images of a foreign domain; raises UserError where it builds none."""
    with _explained(f"domain {name!r}"), child(bounds, of("domain", name)) as line:
        line.ask({"ask": "build", "name": name, "image_size": image_size})
        facts, tensors = line.answer(most=bounds.memory_mb * 2**20)
        parts: dict[str, Any] = {part: (tensors[f"{part}.x"].numpy(), tensors[f"{part}.y"].numpy()) for part in PARTS}
        told: dict[str, Any] = {key: tuple(map(str, facts[key])) for key in ("class_names", "remarks")}
        return Raw(classes=_whole(facts["classes"]), views=_whole(facts["views"]), **parts, **told)


def fingerprint(name: str) -> str:
    """Return what a foreign domain says of the files that it reads."""
    with _explained(f"domain {name!r}"), child(Bounds(), of("domain", name)) as line:
        line.ask({"ask": "fingerprint", "name": name})
        return str(line.answer()[0]["fingerprint"])


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Tell what a child does that only says what it is as a mistake of whoever wrote it."""
    try:
        yield
    except (RuntimeError, TimeoutError, MemoryError) as error:
        first = str(error).partition("\n")[0]
        raise UserError(f"{what} cannot be used: {first}; mend its file") from None


def _method(spec: MethodSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "name": spec.name, "params": spec.params}


def _facts(grant: Grant) -> dict[str, Any]:
    plain = {
        name: getattr(grant, name) for name in ("classes", "target_classes", "seed", "fresh_seed", "key", "precision")
    }
    told = {name: split.objective for name, split in _splits(grant).items() if split} | {"task": grant.objective}
    return plain | {
        "arch": grant.arch.model_dump(),
        "ends": grant.ends,
        "device": str(grant.device),
        "objectives": {name: objective.spec.model_dump(mode="json") for name, objective in told.items()},
    }


def _tensors(grant: Grant) -> dict[str, Tensor]:
    return tensors_of(_splits(grant)) | {f"weights.{name}": tensor for name, tensor in grant.weights.items()}


def _splits(grant: Grant) -> dict[str, Split | None]:
    return {name: getattr(grant, name) for name in SPLITS}


def _size(grant: Grant) -> int:
    # A head for other classes than the source's may be larger than the one that was sent.
    return 2 * sum(t.numel() * t.element_size() for t in grant.weights.values()) + 8 * SLACK


def _loaded(weights: Weights, grant: Grant, on_features: bool) -> nn.Module:
    if not on_features:
        return unpack({n: t.to(grant.device) for n, t in weights.items()}, grant.fresh(grant.target_classes))
    inputs = grant.weights["weight"].shape[1]
    return unpack(weights, Head(nn.Linear(inputs, grant.target_classes))).to(grant.device)


def _cost(facts: dict[str, Any]) -> Cost:
    said = facts.get("cost")
    if not isinstance(said, dict) or said.keys() != asdict(Cost()).keys():
        raise RuntimeError("the method does not tell what it cost")
    seconds = said["seconds"]
    if not isinstance(seconds, int | float) or not 0 <= seconds < MOST_COUNTED:
        raise RuntimeError(f"the method tells of {seconds!r} seconds, which is no duration")
    return Cost(_whole(said["steps"]), _whole(said["samples"]), _whole(said["flops"]), float(seconds))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MOST_COUNTED:
        raise RuntimeError(f"the method tells a cost of {value!r}, which is no count")
    return value


def _path() -> list[str]:
    return [folder for folder in sys.path if folder]


def _resident_mb(process: int) -> float:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    return 0.0
