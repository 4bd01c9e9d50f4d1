"""Every registered method keeps the contract, in its quick configuration and with every switch that changes its way."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ntbench.checks import Check, parametrize_with_checks
from ntbench.method import Method
from ntbench.registry import registry
from ntbench.types import Kind

SWITCHES: list[tuple[Kind, str, dict[str, Any]]] = [
    ("attack", "finetune", {"scope": "head", "lr": 0.1}),
    ("attack", "finetune", {"scope": "head", "init": "reinit", "optimizer": "adam", "lr": 1e-2}),
    ("attack", "finetune", {"init": "reinit", "optimizer": "adam", "lr": 3e-3}),
    ("attack", "finetune", {"init": "whole", "layer_decay": 0.9, "warmup": 5, "augment": "weak"}),
    ("attack", "finetune", {"mask": "keep", "schedule": "cosine"}),
    ("attack", "source_finetune", {"init": "reinit"}),
    ("attack", "transntl", {"updates": "twice", "scale": "klmean"}),
    ("attack", "jailntl", {"estimate": "public", "guidance": 1e-4, "epsilon": 1e-4}),
    ("attack", "plue", {"reference_neighbours": True}),
    ("attack", "adacontrast", {"views": "reference", "flip": True}),
    ("attack", "redraw", {"kept": 2}),
    ("attack", "sam", {"adaptive": True, "rho": 0.5, "optimizer": "adam", "lr": 3e-3}),
    ("attack", "l2_sp", {"init": "keep", "strength": 1e-2, "optimizer": "adam", "lr": 3e-3}),
    ("attack", "regrow", {"init": "fresh", "boost": 3.0}),
    ("attack", "auto", {"mask": "keep", "runs": 3}),
    ("defense", "ntl", {"batches": "separate"}),
    ("defense", "ntl", {"scale": "nats"}),
    ("defense", "ntl_source_only", {"batches": "separate", "scale": "klmean", "tolerance": 0.1}),
    ("defense", "hntl", {"kl": "sum", "teacher": "sample", "encoders": "fresh", "reconstruct": "normalised"}),
    ("defense", "sophon", {"loss": "klu"}),
    ("defense", "sophon", {"loss": "ice_reference"}),
    ("defense", "mlac", {"censor": "recoded"}),
    ("defense", "ntp", {"regulariser": "mmd"}),
    ("defense", "ntp", {"projection": "soft_threshold", "norm_power": 1}),
    ("defense", "ntp", {"batch_norm": "pruned", "source_head": "frozen", "tolerance": 0.1}),
    ("defense", "map", {"bound": "batch"}),
    ("defense", "immunize", {"gram": "features", "rounds": 2}),
    ("defense", "pmp", {"rewind": False, "steps": 150}),
]


if find_spec("opt_einsum"):
    SWITCHES.append(("attack", "finetune", {"optimizer": "kron", "lr": 1e-2}))


def methods(kind: Kind) -> list[Method]:
    quick = [cls(**cls.quick) for name in registry.names(kind) for cls in [registry.get(kind, name)]]
    for _, name, switches in (entry for entry in SWITCHES if entry[0] == kind):
        cls = registry.get(kind, name)
        quick.append(cls(**{**cls.quick, **switches}))
    return quick


# A class each, so that two processes can share the work.
class TestDefenses:
    @parametrize_with_checks(methods("defense"))
    def test_contract(self, method: Method, check: Check) -> None:
        check(method)


class TestAttacks:
    @parametrize_with_checks(methods("attack"))
    def test_contract(self, method: Method, check: Check) -> None:
        check(method)
