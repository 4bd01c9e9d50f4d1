"""Checks of what an attack spends and achieves."""

from __future__ import annotations

from ntbench.checks.laboratory import BUDGET, FEWER, Trial, logits, observe, pretrained, world
from ntbench.method import Method
from ntbench.train import accuracy

GAIN = 0.1


def check_stays_within_budget(method: Method) -> None:
    """It takes at most one optimizer step a yield and no more training samples than the budget has."""
    for step, (steps, samples) in enumerate(observe(method).spent, start=1):
        if steps > step or samples > BUDGET.samples:
            raise AssertionError(
                f"at yield {step} it has taken {steps} optimizer steps and {samples} training samples; "
                f"yield after every step, and keep to ctx.budget.samples = {BUDGET.samples}"
            )


def check_breaks_undefended_models(method: Method) -> None:
    """It adapts a model without any defense: target accuracy rises well above where it starts and above chance."""
    before, after = (accuracy(model, world().target_val) for model in (pretrained(), observe(method).model))
    if after < max(before + GAIN, 0.2):
        raise AssertionError(
            f"target accuracy goes from {before:.2f} to {after:.2f} on an undefended model; "
            f"use settings that gain {GAIN} in {BUDGET.steps} steps, or the row says nothing about defenses"
        )


def check_keeps_zeros(method: Method) -> None:
    """An attack that respects masks leaves every zero of the weights at zero, at every yield."""
    regrown = observe(method, Trial(pruned=True)).regrown
    if regrown:
        raise AssertionError(f"{regrown} zeros have grown back; set them to 0 after every step")


def check_takes_other_class_counts(method: Method) -> None:
    """It gives logits for the classes of the target, whatever their number."""
    found = logits(observe(method, Trial(classes=FEWER)).model, world().target_val.x[:1]).shape[1]
    if found != FEWER:
        raise AssertionError(f"with {FEWER} target classes it gives {found} logits; see ctx.target_classes")
