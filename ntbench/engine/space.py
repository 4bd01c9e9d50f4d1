"""What a defender may tune: a space over a defense's fields, derived from their types and bounds or declared by it.

One rule serves every defense: a positive number may be SPAN times its default or as much less, a share strictly between
0 and 1 may have SPAN^2 times the odds or as much less, and any other number may be all that two bounds leave it. Whole
numbers decide what protecting costs and stay; so do choices, which make another defense of it, and whatever a suite
states. A class says otherwise by its `space`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log
from typing import TYPE_CHECKING, Any, Literal

from pydantic.fields import FieldInfo

from ntbench.errors import UserError, unknown
from ntbench.method import Defense
from ntbench.types import Recipe

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SPAN = 4.0
FIXED = ("tolerance", "clip")
"""How much of the source may go is the suite's to say, and clipping only keeps a training from exploding."""
DIGITS = 4
"""Significant digits of a value, so that a default comes back as itself and people can write down what was found."""
Scale = Literal["log", "odds", "linear", "choice"]


def _log_odds(share: float) -> float:
    return log(share / (1 - share))


def _share(log_odds: float) -> float:
    return 1 / (1 + exp(-log_odds))


_TO: dict[str, Callable[[float], float]] = {"log": log, "odds": _log_odds}
"""From a value to where it lies on a scale; `_BACK` is the way back."""
_BACK: dict[str, Callable[[float], float]] = {"log": exp, "odds": _share}


class Axis(Recipe):
    """What one hyper-parameter may be: one of some choices, or a number from `low` to `high` on a scale."""

    default: Any
    scale: Scale
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def suggested(self, trial: BaseTrial, name: str) -> Any:
        """Return what a trial says that the hyper-parameter is."""
        if self.scale == "choice":
            return self.choices[trial.suggest_categorical(name, [*range(len(self.choices))])]
        place = trial.suggest_float(name, self._placed(self.low), self._placed(self.high))
        value = _BACK.get(self.scale, float)(place)
        return round(value) if isinstance(self.default, int) else float(f"{value:.{DIGITS}g}")

    @property
    def start(self) -> float:
        """Return where the default lies on what trials are drawn from."""
        return self.choices.index(self.default) if self.scale == "choice" else self._placed(self.default)

    def _placed(self, value: float) -> float:
        return _TO.get(self.scale, float)(value)


def space_of(cls: type[Defense]) -> dict[str, Axis]:
    """Return the axes of a defense by field; UserError where its `space` names no field, or leaves a default out.

    A class that stands for one of another process tells them as they were derived there.
    """
    if told := cls.__dict__.get("axes"):
        return {name: Axis.model_validate(axis) for name, axis in told.items()}
    for name in cls.space:
        if name not in cls.model_fields:
            raise unknown(f"field in the space of {cls.name!r}:", name, cls.model_fields)
    found = {name: _axis(cls, name, field) for name, field in cls.model_fields.items()}
    return {name: axis for name, axis in found.items() if axis is not None}


def _axis(cls: type[Defense], name: str, field: FieldInfo) -> Axis | None:
    if name not in cls.space:
        return _derived(field) if name not in FIXED and type(field.default) is float else None
    said = cls.space[name]
    if said is None:
        return None
    if isinstance(said, list):
        axis, inside = Axis(default=field.default, scale="choice", choices=tuple(said)), field.default in said
    else:
        axis = Axis(default=field.default, scale=_scale(field), low=said[0], high=said[1])
        inside = axis.low <= field.default <= axis.high
    if not inside:
        raise UserError(f"space of {cls.name!r}: {name} = {said!r} leaves out its default {field.default!r}; add it")
    return axis


def _derived(field: FieldInfo) -> Axis | None:
    default, (low, high), scale = field.default, _bounds(field), _scale(field)
    if scale == "log":
        low, high = max(low, default / SPAN), min(high, default * SPAN)
    elif scale == "odds":
        odds = default / (1 - default)
        low, high = odds / (odds + SPAN**2), odds / (odds + SPAN**-2)
    return Axis(default=default, scale=scale, low=low, high=high) if high - low < inf else None


def _scale(field: FieldInfo) -> Scale:
    """Return odds for a share strictly inside of 0 and 1, log for another positive number, else linear."""
    low, high = _bounds(field)
    if (low, high) == (0, 1):
        return "odds" if 0 < field.default < 1 else "linear"
    return "log" if field.default > 0 else "linear"


def _bounds(field: FieldInfo) -> tuple[float, float]:
    def bound(*kinds: str, otherwise: float) -> float:
        return next((float(getattr(m, kind)) for m in field.metadata for kind in kinds if hasattr(m, kind)), otherwise)

    return bound("gt", "ge", otherwise=-inf), bound("lt", "le", otherwise=inf)
