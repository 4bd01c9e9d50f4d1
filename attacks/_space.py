"""The attacks that an automatic search chooses among, as one space of hyper-parameters for Optuna."""

from collections.abc import Mapping
from typing import Any

from optuna import Trial
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ntbench.method import Attack, Context, head

from ._tuning import Tuning
from .bn_reset import BatchNormReset
from .finetune import FineTune
from .logit_flip import LogitFlip
from .lora import Lora
from .lp_ft import LpFt
from .merge import Merge
from .perturb import Perturb
from .regrow import Regrow
from .rescale import Rescale
from .source_finetune import SourceFineTune
from .transntl import TransNTL

WAYS: Mapping[str, tuple[type[Attack], dict[str, Any]]] = {
    "new head": (FineTune, {"init": "reinit"}),
    "direct": (FineTune, {}),
    "merge": (Merge, {}),
    "transntl": (TransNTL, {}),
    "source": (SourceFineTune, {"init": "reinit"}),
    "lp_ft": (LpFt, {}),
    "lora": (Lora, {}),
    "rescale": (Rescale, {}),
    "bn_reset": (BatchNormReset, {}),
    "perturb": (Perturb, {}),
    "logit_flip": (LogitFlip, {}),
    "regrow": (Regrow, {}),
}
RATES = {"adam": (5e-4, 2e-2), "momentum": (3e-3, 1e-1)}
KNOWN: tuple[dict[str, Any], ...] = (
    {"way": "new head", "optimizer": "adam", "adam rate": 3e-3, "augment": "none"},
    {"way": "merge", "optimizer": "adam", "adam rate": 3e-3, "augment": "none"},
    {"way": "transntl"},
    {"way": "direct", "optimizer": "momentum", "momentum rate": 3e-2, "augment": "none"},
    {"way": "source", "optimizer": "adam", "adam rate": 3e-3, "augment": "none"},
    {"way": "direct", "optimizer": "adam", "adam rate": 1e-3, "augment": "weak"},
    {"way": "perturb", "optimizer": "adam", "adam rate": 3e-3, "augment": "none"},
)
"""Where a search starts: what is strong against some family of models."""


KEEPING = ("new head", "direct")
"""The ways that can put released zeros back."""


def open_ways(model: nn.Module, ctx: Context) -> list[str]:
    """Return the ways that lead anywhere from a model: zeros to regrow, norms to reset, a head that fits the target."""
    norms = any(isinstance(module, _BatchNorm) for module in model.modules())
    zeros = any(bool((p == 0).any()) for p in model.parameters() if p.ndim > 1)
    fits = head(model).out_features == ctx.target_classes
    closed = {"regrow": not zeros} | dict.fromkeys(("bn_reset", "rescale"), not norms)
    closed |= dict.fromkeys(("logit_flip", "transntl", "source"), not fits)
    return [way for way in WAYS if not closed.get(way)]


def propose(trial: Trial, ways: list[str], fixed: dict[str, Any]) -> Attack:
    """Return the attack that a trial stands for, among some of the WAYS, with some hyper-parameters fixed."""
    cls, params = WAYS[trial.suggest_categorical("way", ways)]
    if not issubclass(cls, Tuning):
        return cls(**params)
    optimizer = trial.suggest_categorical("optimizer", [*RATES])
    lr = trial.suggest_float(f"{optimizer} rate", *RATES[optimizer], log=True)
    augment = trial.suggest_categorical("augment", ["none", "weak"])
    return cls(**params, **fixed, optimizer=optimizer, lr=lr, augment=augment)
