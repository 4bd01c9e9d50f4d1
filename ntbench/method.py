"""Defense, Attack, Context, and what a domain or a metric is: the only module of ours that a submission imports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import nn

from ntbench.access import Access, defense_needs
from ntbench.domains import Dataset, Raw
from ntbench.errors import UnusableError, UserError
from ntbench.learn import optim
from ntbench.learn.fit import Fit, descend, fit
from ntbench.learn.models import features, head, load_public, reset_head
from ntbench.learn.optim import create_optimizer, create_schedule
from ntbench.learn.scoring import accuracy, correct
from ntbench.metric import Metric, Row
from ntbench.registry import registry
from ntbench.sources import code_digest, file_digest
from ntbench.tasks.classification import CLASSIFYING
from ntbench.tasks.data import Split
from ntbench.tasks.denoising import Denoising
from ntbench.tasks.objective import Objective
from ntbench.types import Kind, Mask, MethodSpec, Training, digest

__all__ = [
    "Access",
    "Attack",
    "Context",
    "Dataset",
    "Defense",
    "Denoising",
    "Field",
    "Fit",
    "Mask",
    "Metric",
    "Objective",
    "Optimizer",
    "Raw",
    "Row",
    "Schedule",
    "Split",
    "Training",
    "UnusableError",
    "accuracy",
    "correct",
    "create_optimizer",
    "create_schedule",
    "descend",
    "features",
    "file_digest",
    "fit",
    "head",
    "load_public",
    "register",
    "reset_head",
]

register = registry.register


def _known(check: Callable[[str], None]) -> Callable[[str], str]:
    def validate(name: str) -> str:
        try:
            check(name)
        except UserError as error:
            raise ValueError(str(error)) from None
        return name

    return validate


Optimizer = Annotated[str, AfterValidator(_known(optim.check_optimizer))]
Schedule = Annotated[str, AfterValidator(_known(optim.check_schedule))]


@dataclass(frozen=True)
class Context:
    """What the threat model grants a method, and nothing else: no test data, and to a defender no attacker's images.

    A split that is not granted is None; where labels are not granted they are all -1. A defender's target images are
    its own share of the domains that it guards, and `target_val` is a part of that share which `target` lacks; an
    attacker's `source` is the share of its track, and `unlabelled` what its samples are drawn from. `steps` is the
    budget of an attack's run in optimizer steps, and 0 for a defender, whom nobody counts.
    """

    source: Split | None
    target: Split | None
    source_val: Split | None
    target_val: Split | None
    target_classes: int
    steps: int
    seed: int
    device: torch.device
    fresh: Callable[[int], nn.Module]
    """Build a randomly initialised model of the declared architecture with a number of classes."""
    objective: Objective = CLASSIFYING
    """What a batch, the loss and a score are; the splits have it too, so that `fit` and `correct` go by it."""
    unlabelled: Split | None = None

    def generator(self, *names: str) -> torch.Generator:
        """Return a CPU generator that depends on the recipe and the names alone."""
        return torch.Generator().manual_seed(int(digest([self.seed, *names]), 16) % 2**63)


class Method(BaseModel):
    """A defense or an attack; its fields are its hyper-parameters, frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[Kind]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    objectives: ClassVar[tuple[str, ...]] = ("classification",)
    """The objectives that a method is written for; an objective may take others in that need nothing of it."""
    expected_failures: ClassVar[dict[str, str]] = {}
    quick: ClassVar[dict[str, Any]] = {}
    """Cheaper hyper-parameters with which `ntbench check` examines this method."""

    def spec(self, label: str = "") -> MethodSpec:
        """Return what stands for this method in recipes, with every hyper-parameter resolved."""
        return MethodSpec(
            kind=self.kind,
            name=self.name,
            version=self.version,
            code=code_digest(type(self)),
            params=self.model_dump(mode="json"),
            label=label or self.name,
        )


class Defense(Method):
    """Takes a model trained on source and returns protected weights of the same architecture."""

    kind: ClassVar[Kind] = "defense"
    needs_source: ClassVar[bool] = True
    needs_target: ClassVar[bool] = False
    needs_target_labels: ClassVar[bool] = False
    masked: ClassVar[bool] = False
    """Whether zeros in the released weights are a mask that an attacker may keep or drop."""
    space: ClassVar[Mapping[str, list[Any] | tuple[float, float] | None]] = {}
    """What tuning may set a field to, where the general rule does not fit: a list of choices, both ends, or nothing."""

    @classmethod
    def needs(cls) -> str:
        """Return in words which data a defense asks for."""
        return defense_needs(cls.needs_source, cls.needs_target, cls.needs_target_labels)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the protected model; the given one may be changed in place."""
        raise NotImplementedError(f"{type(self).__name__}.protect")


class Attack(Method):
    """Takes protected weights and what its access grants, and yields adapted models."""

    kind: ClassVar[Kind] = "attack"
    access: ClassVar[Access] = Access()
    at_horizon_alone: ClassVar[bool] = False
    """Whether an attack with a loop of its own is run for the largest budget alone."""

    @classmethod
    def needs(cls) -> str:
        """Return in words what an attack asks for."""
        return cls.access.needs()

    @property
    def respects_mask(self) -> bool:
        """Return whether the attack keeps the zeros of a released mask."""
        return False

    @property
    def on_features(self) -> bool:
        """Return whether the attack touches the head alone: it then gets features for images, and the head as model."""
        return False

    def refuses(self, defense: Defense, source_classes: int, target_classes: int) -> str:
        """Return why the attack cannot face a defense on a task, or an empty string where it can."""
        if self.respects_mask and not defense.masked:
            return f"{defense.name} releases no mask to keep"
        if self.access.target != "labelled" and source_classes != target_classes:
            return f"without target labels the {source_classes} source classes cannot become {target_classes} others"
        return ""

    def unfit(self, model: nn.Module) -> str:
        """Return why the attack cannot work on an architecture, of which a model is given, or an empty string."""
        return ""

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        """Yield the adapted model after every optimizer step, up to `ctx.steps` of them; the last one is scored.

        It is run anew for every budget that is scored, or for the largest alone with `at_horizon_alone`. A string that
        the generator returns stands in the result as what the attack chose.
        """
        if type(self).fit_of is Attack.fit_of:
            raise NotImplementedError(f"{type(self).__name__}.attack")
        return self._fitted(model, ctx)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit | None:
        """Prepare the model and return the training that is all there is to the attack.

        An attack of one plain training has this in place of `attack`: the engine then climbs through all budgets in
        one run, and may train several attacks at once.
        """
        return None

    @property
    def is_one_fit(self) -> bool:
        """Return whether the attack is one plain training: `fit_of` and no `attack` of its own."""
        return type(self).attack is Attack.attack and type(self).fit_of is not Attack.fit_of

    def _fitted(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        fit = self.fit_of(model, ctx)
        assert fit is not None
        for _ in fit.run():
            yield fit.adapted
