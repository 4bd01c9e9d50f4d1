"""SOPHON for generation: its losses in closed form, its time steps, and what it does to an attacker's first steps."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ntbench.errors import UnusableError
from ntbench.learn.fit import fit
from ntbench.learn.models import build
from ntbench.method import Context, Training
from ntbench.registry import registry
from ntbench.tasks.data import Split
from ntbench.tasks.denoising import Denoising
from ntbench.types import Arch

sophon = import_module("ntbench.defenses.sophon_generation")
ARCH = Arch(name="unet2d", params={"block_out_channels": (8, 16)})
OBJECTIVE = Denoising(channels=1, best=0.05)
CHEAP: dict[str, Any] = {"loops": 1, "inner_steps": 2, "source_steps": 1, "final_steps": 2, "batch_size": 8}


def squares(inverted: bool) -> Split:
    x = torch.full((32, 1, 8, 8), -1.0)
    for i in range(32):
        x[i, 0, i % 5 : i % 5 + 3, i % 4 : i % 4 + 3] = 1.0
    return Split(-x if inverted else x, torch.zeros(32, dtype=torch.long), objective=OBJECTIVE)


def context() -> Context:
    source, target = squares(False), squares(True)
    return Context(
        source=source,
        target=target,
        source_val=source,
        target_val=target,
        target_classes=1,
        steps=0,
        seed=0,
        device=torch.device("cpu"),
        fresh=lambda classes: build(ARCH, classes, seed=1),
        objective=OBJECTIVE,
    )


def test_losses_in_closed_form() -> None:
    outputs, noise = torch.tensor([[3.0, 3.0], [1.0, 1.0]]), torch.zeros(2, 2)
    assert sophon.silence(outputs, noise).item() == 5
    assert sophon.log_error(outputs, noise).item() == pytest.approx(-math.log(5))
    assert sophon.bounded_error(2.0)(outputs, noise).item() == -(2 + 1) / 2
    outputs.requires_grad_(True)
    sophon.bounded_error(2.0)(outputs, noise).backward()
    assert outputs.grad is not None and not outputs.grad[0].any() and (outputs.grad[1] < 0).all()


def test_queries_are_at_their_time_steps_alone() -> None:
    x, _ = next(sophon.at_times(squares(True), (3, 5)).batches(32, torch.Generator().manual_seed(0)))
    assert set(x[:, -1].unique().tolist()) == {3.0, 4.0}


@pytest.mark.parametrize("loss", ["dos", "mse", "log"])
def test_a_step_against_an_attacker_raises_what_it_maximises(loss: str) -> None:
    ctx, model = context(), build(ARCH, 1, seed=0)
    assert ctx.source is not None and ctx.target is not None
    for _ in fit(model, ctx.source, Training(lr=5e-3, steps=10, batch_size=8), ctx.generator("pre")):
        pass
    slow: dict[str, Any] = {"inner_steps": 2, "reinit": 0.0, "redraw": 0.0, "attackers": (("sgd", 1e-6, 1e-6),)}
    method = sophon.SophonGeneration(loss=loss, **slow)
    x, noise = next(sophon.at_times(ctx.target, (0, 500)).batches(32, ctx.generator("look")))
    before = method._loss(model(x), noise).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    query = iter([(x, noise)] * 5)
    for _ in range(5):
        method._suppress(model, optimizer, ctx.target.batches(16, ctx.generator("t")), query, ctx.generator("a"))
    assert method._loss(model(x), noise).item() < before


def test_a_release_that_lost_the_source_is_unusable() -> None:
    model = build(ARCH, 1, seed=0)
    ctx = context()
    assert ctx.source is not None
    for _ in fit(model, ctx.source, Training(lr=5e-3, steps=15, batch_size=16), ctx.generator("pre")):
        pass
    with pytest.raises(UnusableError, match="final_steps"):
        sophon.SophonGeneration(**CHEAP, lr=0.1, source_lr=1e-6, tolerance=0.0).protect(model, ctx)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="lowest rate first"):
        sophon.SophonGeneration(attackers=(("adam", 1e-2, 1e-3),))
    with pytest.raises(ValidationError):
        sophon.SophonGeneration(loss="kl")


def test_the_joint_loss_keeps_the_source_and_raises_the_target() -> None:
    ctx, model = context(), build(ARCH, 1, seed=0)
    assert ctx.source is not None and ctx.target is not None
    for _ in fit(model, ctx.source, Training(lr=5e-3, steps=15, batch_size=16), ctx.generator("pre")):
        pass
    before = OBJECTIVE.errors(model.eval(), ctx.target.x).mean()
    method = registry.get("defense", "ntl_generation")(steps=10, final_steps=1, batch_size=8, tolerance=1.0, alpha=1.0)
    released = method.protect(model, ctx)
    with torch.no_grad():
        assert OBJECTIVE.errors(released.eval(), ctx.target.x).mean() > before
