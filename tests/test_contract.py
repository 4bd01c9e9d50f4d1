"""Every registered method keeps the contract, in its quick configuration and with every switch that changes its way."""

from __future__ import annotations

from typing import Any

from ntbench.checks import Check, parametrize_with_checks
from ntbench.method import Method
from ntbench.registry import registry
from ntbench.types import Kind

KINDS: tuple[Kind, Kind] = ("defense", "attack")
SWITCHES: list[tuple[Kind, str, dict[str, Any]]] = [
    ("attack", "finetune", {"scope": "head", "lr": 0.1}),
    ("attack", "finetune", {"scope": "head", "init": "reinit", "optimizer": "adam", "lr": 1e-2}),
    ("attack", "finetune", {"init": "reinit", "optimizer": "adam", "lr": 3e-3}),
    ("attack", "finetune", {"mask": "keep", "schedule": "cosine"}),
    ("defense", "ntl", {"batches": "separate"}),
    ("defense", "sophon", {"loss": "klu"}),
    ("defense", "sophon", {"loss": "ice_reference"}),
    ("defense", "ntp", {"regulariser": "mmd"}),
    ("defense", "ntp", {"projection": "soft_threshold", "norm_power": 1}),
]


def methods() -> list[Method]:
    quick = [cls(**cls.quick) for kind in KINDS for name in registry.names(kind) for cls in [registry.get(kind, name)]]
    for kind, name, switches in SWITCHES:
        cls = registry.get(kind, name)
        quick.append(cls(**{**cls.quick, **switches}))
    return quick


@parametrize_with_checks(methods())
def test_contract(method: Method, check: Check) -> None:
    check(method)
