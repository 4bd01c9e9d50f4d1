"""One broken method or more for every check, as its author might write it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from planted import PLANTS, Protecting, Tuning, attack, defense, file, nudge, plant, variant
from pydantic import ConfigDict, PrivateAttr
from torch import nn

from ntbench.method import Access, Context, Training, fit, head, reset_head

__all__ = ["PLANTS"]

file("check_documented", "no_docstring", "planted", lambda text: text.replace("Returns the model as it came.", "Mine"))
file("check_named_as_its_file", "other_name", "other", lambda text: text)
file(
    "check_imports_only_the_interface",
    "test_data",
    "planted",
    lambda s: s + "\nfrom ntbench.tasks import data\n",
)
file("check_imports_only_the_interface", "package", "planted", lambda s: s + "\nfrom ntbench import tasks\n")
plant("check_documented", Protecting, "no_paper", paper="")
plant("check_refuses_unknown_settings", Protecting, "extra", model_config=ConfigDict(frozen=True, extra="ignore"))
plant("check_refuses_unknown_settings", Protecting, "mutable", model_config=ConfigDict(frozen=False, extra="forbid"))
plant("check_expected_failures", Protecting, "misspelt", expected_failures={"check_repeat": "misspelt"})
plant("check_masks_something", Protecting, "masks_nothing", masked=True)
plant("check_uses_no_target_labels", Tuning, "trains_on_hidden_labels", access=Access(target="unlabelled"))
plant("check_keeps_zeros", Tuning, "zeros_grow", respects_mask=property(lambda self: True))


@defense("check_expected_failures", expected_failures={"check_keeps_source_accuracy": ""})
def expects_without_reason(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return ctx.fresh(10)


@defense("check_settings_are_fields", _scale=PrivateAttr(default=1e-3))
def has_a_private_setting(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, self._scale)


@defense("check_runs")
def crashes(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    raise RuntimeError("planted")


@defense("check_runs")
def returns_nothing(self: Any, model: nn.Module, ctx: Context) -> None:
    nudge(model, 1e-3)


@attack("check_runs")
def yields_nothing(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    yield from ()


@defense("check_repeats")
def draws_from_the_machine(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, int.from_bytes(os.urandom(4), "little") / 2**40)


@defense("check_ignores_global_seeds")
def draws_globally(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, 1e-3 * torch.randn(10))


@defense("check_ignores_global_seeds")
def seeds_globally(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    torch.manual_seed(0)
    return nudge(model, 1e-3 * torch.randn(10))


@defense("check_ignores_the_given_mode")
def minds_the_mode(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, 1e-3 * model.training)


@defense("check_restores_settings")
def leaves_gradients_off(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    torch.set_grad_enabled(False)
    return model


@defense("check_restores_settings")
def leaves_doubles(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return model


@defense("check_restores_settings")
def leaves_threads(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    torch.set_num_threads(torch.get_num_threads() + 1)
    return model


@attack("check_restores_settings")
def yields_without_gradients(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    for adapted in self.tuned(model, ctx):
        with torch.no_grad():
            yield adapted


@attack("check_restores_settings")
def ends_on_more_threads(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    yield from self.tuned(model, ctx)
    torch.set_num_threads(2)


@defense("check_keeps_no_state", seen=[], __annotations__={"seen": ClassVar[list[int]]})
def remembers_on_the_class(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    self.seen.append(1)
    return model


@defense("check_keeps_no_state")
def remembers_on_itself(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
    return model


@defense("check_looks_nothing_up")
def reads_the_environment(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, float(os.environ.get("PLANTED_SCALE", "1e-3")))


@defense("check_looks_nothing_up")
def reads_a_file(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, 1e-9 * len((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")))


@defense("check_settings_are_read", scale=1e-3, temperature=1.0, unused=lambda self: self.temperature)
def has_a_dead_setting(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, self.scale)


@defense("check_leaves_data_alone")
def writes_into_data(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    assert ctx.source is not None
    ctx.source.x.mul_(0.5)
    return model


@attack("check_leaves_data_alone")
def differentiates_data(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    assert ctx.target is not None
    for adapted in self.tuned(model, ctx):
        ctx.target.x.requires_grad_()
        yield adapted


@defense("check_finite")
def releases_infinity(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, torch.tensor([0.0] * 9 + [-torch.inf]))


@attack("check_predicts_one_by_one")
def uses_batch_statistics(self: Any, model: nn.Module, ctx: Context) -> Any:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None
    return self.tuned(model, ctx)


@defense("check_uses_no_target")
def uses_target_images(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nudge(model, 0.0 if ctx.target is None else 1e-3 * ctx.target.x.mean())


@defense("check_uses_no_target_labels", needs_target=True)
def uses_target_labels(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    assert ctx.target is not None
    return nudge(model, 1e-3 * ctx.target.y.float().mean())


@attack("check_uses_no_source")
def uses_source(self: Any, model: nn.Module, ctx: Context) -> Any:
    assert ctx.source is not None
    return self.tuned(nudge(model, 1e-3 * ctx.source.x.mean()), ctx)


@defense("check_survives_release")
def returns_a_hook(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


@defense("check_survives_release")
def returns_a_wrapper(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return nn.Sequential(model)


@defense("check_returns_a_trainable_model")
def returns_frozen_weights(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return model.requires_grad_(False)


@defense("check_keeps_source_accuracy")
def forgets_the_source(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    return ctx.fresh(10)


@defense("check_takes_other_class_counts", needs_target=True, needs_target_labels=True)
def releases_a_target_head(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
    if head(model).out_features != ctx.target_classes:
        reset_head(model, ctx.target_classes, ctx.generator("head"))
    return model


@attack("check_takes_other_class_counts")
def keeps_the_source_head(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    assert ctx.target is not None
    training = Training(lr=3e-3, steps=ctx.steps, batch_size=32)
    return (model for _ in fit(model, ctx.target, training, ctx.generator("batches")))


@attack("check_runs")
def yields_every_other_step(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    return (adapted for step, adapted in enumerate(self.tuned(model, ctx)) if step % 2)


@attack("check_breaks_undefended_models")
def barely_moves(self: Any, model: nn.Module, ctx: Context) -> Any:
    return self.tuned(model, ctx, lr=1e-7)


class Demanding(Protecting):
    """Has a hyper-parameter without a default, and one of a loose type."""

    scale: float
    more: Any = None

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        return nudge(model, self.scale * len(self.more or ()))


PLANTS.append(("check_has_defaults", "no_default", lambda folder: variant(Demanding)(scale=1e-3)))
PLANTS.append(("check_recipe_round_trip", "loose_type", lambda folder: variant(Demanding, scale=1e-3)(more=(1, 2))))
