"""Sound methods, and how to break one: every plant names the check that must fail, and builds the broken method."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ntbench.method import Attack, Context, Defense, Method, Training, fit, head, reset_head

Build = Callable[[Path], Method]
PLANTS: list[tuple[str, str, Build]] = []


class Protecting(Defense):
    name = "planted"
    paper = "https://example.org"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        return model


class Tuning(Attack):
    name = "planted"
    paper = "https://example.org"

    def attack(self, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
        return self.tuned(model, ctx)

    def tuned(self, model: nn.Module, ctx: Context, lr: float = 3e-3, batch_size: int = 32) -> Iterator[nn.Module]:
        assert ctx.target is not None
        if head(model).out_features != ctx.target_classes:
            reset_head(model, ctx.target_classes, ctx.generator("head"))
        training = Training(lr=lr, steps=ctx.steps, batch_size=batch_size)
        for _ in fit(model, ctx.target, training, ctx.generator("batches")):
            yield model


def variant(base: type[Method], **members: Any) -> Any:
    """Return a class inside a function, as it were, with fields for every float among its members."""
    types = {name: type(value).__name__ for name, value in members.items() if isinstance(value, float)}
    names = {"__module__": __name__, "__qualname__": "<locals>.Planted", "__annotations__": types}
    return type("Planted", (base,), names | members)


def plant(check: str, base: type[Method], title: str, **members: Any) -> None:
    """Keep a broken variant of a sound method."""
    PLANTS.append((check, title, lambda folder: variant(base, **members)()))


def defense(check: str, **members: Any) -> Callable[[Callable[..., Any]], None]:
    """Plant a defense with the decorated function as protect()."""
    return lambda function: plant(check, Protecting, function.__name__, protect=function, **members)


def attack(check: str, **members: Any) -> Callable[[Callable[..., Any]], None]:
    """Plant an attack with the decorated function as attack()."""
    return lambda function: plant(check, Tuning, function.__name__, attack=function, **members)


def file(check: str, title: str, stem: str, change: Callable[[str], str]) -> None:
    """Plant a file of its own."""
    PLANTS.append((check, title, lambda folder: from_file(folder / f"{stem}.py", change(SOURCE))))


def from_file(path: Path, text: str) -> Method:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"planted_{path.stem}", path)
    assert spec and spec.loader
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    method: Method = module.Planted()
    return method


@torch.no_grad()
def nudge(model: nn.Module, by: Any) -> nn.Module:
    head(model).bias.add_(by)
    return model


SOURCE = '''"""Returns the model as it came.

No paper.
"""
from ntbench.method import Defense

class Planted(Defense):
    name = "planted"

    def protect(self, model, ctx):
        return model
'''
