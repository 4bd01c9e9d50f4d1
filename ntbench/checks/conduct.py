"""Checks of how a method behaves, be it a defense or an attack."""

from __future__ import annotations

import torch

from ntbench.checks.laboratory import Trial, logits, observe, run, shown, world
from ntbench.checks.reading import fields_read, recorder
from ntbench.learn.models import pack
from ntbench.method import Method

FEW = 7


def check_runs(method: Method) -> None:
    """It does its work on a small task and hands over a model."""
    observe(method)


def check_repeats(method: Method) -> None:
    """It gives bit for bit the same weights when it runs again."""
    if not _repeats(method):
        raise AssertionError("a second run gives other weights; draw every random number from ctx.generator(...)")


def check_ignores_global_seeds(method: Method) -> None:
    """The global random states neither decide anything nor are they set."""
    if observe(method).traces.reseeded:
        raise AssertionError("it seeds torch's global generator; draw from ctx.generator(...), which knows the seed")
    if _repeats(method) and not _same(method, Trial(global_seed=1)):
        raise AssertionError("the global random state decides the weights; draw from ctx.generator(...) alone")


def check_ignores_the_given_mode(method: Method) -> None:
    """It gives the same weights whether the model comes in train or in eval mode."""
    if _repeats(method) and not _same(method, Trial(train_mode=False)):
        raise AssertionError("a model in eval mode gives other weights; call model.train() or model.eval() yourself")


def check_restores_settings(method: Method) -> None:
    """Grad mode, default dtype, threads and determinism are as before after the run and at every yield."""
    for name in sorted(observe(method).traces.disturbed):
        raise AssertionError(f"{name} is changed; put it back before you return or yield")


def check_keeps_no_state(method: Method) -> None:
    """Nothing is remembered from a run on the instance, its class or its module."""
    for name in sorted(observe(method).traces.remembered):
        raise AssertionError(f"{name} is changed by a run; keep what a run needs in local variables")


def check_looks_nothing_up(method: Method) -> None:
    """No file and no environment variable is read, since neither is part of the recipe."""
    for what in sorted(observe(method).traces.looked_up):
        raise AssertionError(f"{what} is read; make what it decides a hyper-parameter")


def check_settings_are_read(method: Method) -> None:
    """Every hyper-parameter is read in a function that runs."""
    twin, read = recorder(method)
    run(twin)
    for name in sorted(type(method).model_fields.keys() - fields_read(method, read)):
        raise AssertionError(f"the hyper-parameter {name!r} is never read; use it or remove it")


def check_leaves_data_alone(method: Method) -> None:
    """The splits that it is given are as before afterwards."""
    for name in observe(method).overwritten:
        raise AssertionError(f"{name} is overwritten or asks for gradients; work on a copy")


def check_finite(method: Method) -> None:
    """Every weight is finite."""
    try:
        pack(observe(method).model)
    except FloatingPointError as error:
        raise AssertionError(f"{error}; clip, bound or stop before that") from None


def check_predicts_one_by_one(method: Method) -> None:
    """In eval mode a prediction does not depend on the batch that the image is in."""
    model, images = observe(method).model, shown(world(method).target_test)
    whole = logits(model, images)[:FEW]
    if not torch.allclose(whole, logits(model, images[:FEW]), rtol=1e-3, atol=1e-4, equal_nan=True):
        raise AssertionError("predictions change with the batch in eval mode; batch statistics are no part of a model")


def check_uses_no_target(method: Method) -> None:
    """Target data that it does not ask for decide nothing."""
    _refuse_use(method, Trial(target=False, target_labels=False), "target data", "needs_target or access.target")


def check_uses_no_target_labels(method: Method) -> None:
    """Target labels that it does not ask for decide nothing."""
    _refuse_use(method, Trial(target_labels=False), "target labels", "needs_target_labels or access.target")


def check_uses_no_source(method: Method) -> None:
    """Source data that it does not ask for decide nothing."""
    _refuse_use(method, Trial(source=False), "source data", "access.source")


def _repeats(method: Method) -> bool:
    return _same(method, Trial(repetition=1))


def _same(method: Method, trial: Trial) -> bool:
    return observe(method, trial).fingerprint == observe(method).fingerprint


def _refuse_use(method: Method, trial: Trial, what: str, where: str) -> None:
    remedy = f"it gets none in a run; ask for them in `{where}`, or do without"
    try:
        same = _same(method, trial)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise AssertionError(f"it uses {what} without asking, and stops without them ({reason}): {remedy}") from error
    if not same and _repeats(method):
        raise AssertionError(f"it uses {what} without asking, and the weights depend on them: {remedy}")
