"""The attacks that an automatic search chooses among, as one space of hyper-parameters for Optuna."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial
from torch import nn

from ntbench.method import Context, head

from ._layers import depths
from ._tuning import Tuning
from .bn_reset import BatchNormReset
from .finetune import FineTune
from .flatten import Flatten
from .logit_flip import LogitFlip
from .lora import Lora
from .perturb import Perturb
from .redraw import Redraw
from .regrow import Regrow
from .rescale import Rescale

WAYS: Mapping[str, tuple[type[Tuning], dict[str, Any]]] = {
    "direct": (FineTune, {}),
    "new head": (FineTune, {"init": "reinit"}),
    "redraw": (Redraw, {}),
    "perturb": (Perturb, {}),
    "flatten": (Flatten, {}),
    "rescale": (Rescale, {}),
    "bn_reset": (BatchNormReset, {}),
    "logit_flip": (LogitFlip, {}),
    "lora": (Lora, {}),
    "regrow": (Regrow, {}),
}
KEEPING = ("direct", "new head")
"""The ways that can put released zeros back."""
RATES = {"adam": (3e-4, 2e-2), "momentum": (2e-3, 1e-1), "muon": (2e-3, 5e-2)}
KNOWN: tuple[dict[str, Any], ...] = (
    {"way": "direct", "optimizer": "momentum", "momentum rate": 1e-2},
    {"way": "perturb", "noise": 0.1, "optimizer": "adam", "adam rate": 3e-3},
    {"way": "redraw", "kept": 1, "optimizer": "adam", "adam rate": 3e-3},
    {"way": "perturb", "noise": 0.1, "optimizer": "muon", "muon rate": 1e-2},
    {"way": "direct", "optimizer": "muon", "muon rate": 5e-3},
    {"way": "new head", "optimizer": "adam", "adam rate": 1e-2},
)
"""Where a search starts: what was strong against some family of models, the best for very few samples first."""
KNOWN_BY: Mapping[str, tuple[dict[str, Any], ...]] = {
    "denoising": (
        {"way": "direct", "optimizer": "adam", "adam rate": 1e-2},
        {"way": "new head", "optimizer": "adam", "adam rate": 1e-2},
        {"way": "redraw", "kept": 3, "optimizer": "adam", "adam rate": 1e-2},
        {"way": "direct", "optimizer": "adam", "adam rate": 3e-3},
        {"way": "perturb", "noise": 0.1, "optimizer": "adam", "adam rate": 1e-2},
    )
}
"""The same by objective, where another one has rates of its own."""


def open_ways(model: nn.Module, ctx: Context) -> list[str]:
    """Return the ways that lead anywhere from a model: zeros to regrow, norms to reset, a head that fits the target.

    What has no meaning for the objective leads nowhere.
    """
    zeros = any(bool((p == 0).any()) for p in model.parameters() if p.ndim > 1)
    closed = {"regrow": not zeros, "logit_flip": head(model).out_features != ctx.target_classes}
    attacks = {way: cls(**params) for way, (cls, params) in WAYS.items() if not closed.get(way)}
    return [way for way, attack in attacks.items() if not (ctx.objective.refuses(attack) or attack.unfit(model))]


def known_strong(ctx: Context) -> tuple[dict[str, Any], ...]:
    """Return where a search for the objective starts, the best for very few samples first."""
    return KNOWN_BY.get(ctx.objective.name, KNOWN)


def propose(trial: BaseTrial, ways: list[str], deepest: int, fixed: Mapping[str, Any]) -> Tuning:
    """Return the attack that a trial stands for, among some of the WAYS, with some hyper-parameters fixed.

    At most so many layers are kept where the others are drawn anew.
    """
    way = trial.suggest_categorical("way", ways)
    cls, params = WAYS[way]
    own: dict[str, Any] = {}
    if way == "redraw":
        own["kept"] = trial.suggest_int("kept", 1, deepest)
    elif way == "perturb":
        own["noise"] = trial.suggest_float("noise", 0.0, 0.2)
    optimizer = trial.suggest_categorical("optimizer", [*RATES])
    lr = trial.suggest_float(f"{optimizer} rate", *RATES[optimizer], log=True)
    return cls(**params, **own, **fixed, optimizer=optimizer, lr=lr)


def deepest_redraw(model: nn.Module) -> int:
    """Return how many layers can be kept at most while others are drawn anew."""
    return max(1, len(set(depths(model).values())) - 2)
