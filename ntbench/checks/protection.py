"""Checks of what a defense releases."""

from __future__ import annotations

import torch

from ntbench.checks.laboratory import FEWER, Trial, fresh, logits, observe, pretrained, shown, world
from ntbench.learn.models import head, pack, unpack
from ntbench.learn.scoring import accuracy
from ntbench.method import Method


def check_survives_release(method: Method) -> None:
    """Its weights, loaded into a fresh model of the architecture, predict what its own model predicts."""
    model = observe(method).model
    images = shown(world(method).source_val)
    try:
        released = unpack(pack(model), fresh(method))
    except FloatingPointError:  # check_finite tells
        return
    except ValueError as error:
        raise AssertionError(f"{error}; return a model of the architecture that was given") from None
    if not torch.allclose(logits(released, images), logits(model, images), rtol=1e-3, atol=1e-4):
        raise AssertionError("only weights are released, and alone they predict something else; leave hooks out")


def check_returns_a_trainable_model(method: Method) -> None:
    """Every parameter of the returned model still asks for gradients."""
    for name, parameter in observe(method).model.named_parameters():
        if not parameter.requires_grad:
            raise AssertionError(f"{name} no longer asks for gradients; call requires_grad_(True) before you return")


def check_keeps_source_accuracy(method: Method) -> None:
    """At least half of the source accuracy is left."""
    try:
        before, after = (
            accuracy(model, world(method).source_val) for model in (pretrained(method), observe(method).model)
        )
    except FloatingPointError:  # check_finite tells
        return
    if after < before / 2:
        raise AssertionError(
            f"source accuracy falls from {before:.2f} to {after:.2f}; train on ctx.source too, "
            "or declare the check in `expected_failures` with the reason"
        )


def check_masks_something(method: Method) -> None:
    """A defense with `masked = True` releases weights with zeros among them."""
    weights = [p for p in observe(method).model.parameters() if p.ndim > 1]
    if not any(bool((p == 0).any()) for p in weights):
        raise AssertionError("masked = True, but no released weight is zero; set pruned weights to 0 or drop `masked`")


def check_takes_other_class_counts(method: Method) -> None:
    """It works where the target has other classes than the source, and keeps the source's head."""
    found = head(observe(method, Trial(classes=FEWER)).model).out_features
    if found != 10:
        raise AssertionError(f"with {FEWER} target classes it releases a head for {found} in place of the source's 10")
