"""Checks of what an attack spends and achieves."""

from __future__ import annotations

from ntbench.checks.laboratory import ENDS, FEWER, Trial, logits, observe, pretrained, shown, world
from ntbench.learn.scoring import accuracy
from ntbench.method import Attack

# What an attack can gain depends on what it learns from; whoever sees no target can only repair.
GAINS = {"labelled": 0.1, "unlabelled": 0.02, None: 0.1}
ABOVE_CHANCE = 0.2


def check_breaks_undefended_models(method: Attack) -> None:
    """It adapts a model without any defense, or repairs a damaged one without target data: target accuracy rises."""
    trial, gain = Trial(damaged=method.access.target is None), GAINS[method.access.target]
    start = pretrained(method, damaged=trial.damaged)
    before, after = (accuracy(model, world(method).target_test) for model in (start, observe(method, trial).model))
    if after < max(before + gain, ABOVE_CHANCE):
        raise AssertionError(
            f"target accuracy goes from {before:.2f} to {after:.2f} on an undefended model; "
            f"use settings that gain {gain} in {ENDS[-1]} steps, or the row says nothing about defenses"
        )


def check_keeps_zeros(method: Attack) -> None:
    """An attack that respects masks leaves every zero of the weights at zero, at every yield."""
    regrown = observe(method, Trial(pruned=True)).regrown
    if regrown:
        raise AssertionError(f"{regrown} zeros have grown back; set them to 0 after every step")


def check_takes_other_class_counts(method: Attack) -> None:
    """It gives logits for the classes of the target, whatever their number."""
    found = logits(observe(method, Trial(classes=FEWER)).model, shown(world(method).target_test)[:1]).shape[1]
    if found != FEWER:
        raise AssertionError(f"with {FEWER} target classes it gives {found} logits; see ctx.target_classes")
