"""Plants one broken method per check and sees exactly that check fail."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, PrivateAttr
from rich.console import Console
from torch import nn

from ntbench.checks import adaptation, conduct, contract, declaration, protection
from ntbench.checks.contract import check_method, checks_of, examine, parametrize_with_checks
from ntbench.errors import UserError
from ntbench.method import Access, Attack, Context, Defense, Method, Training, fit, head, reset_head

MODULES = (declaration, conduct, protection, adaptation, contract)
Build = Callable[[Path], Method]
STEPS = 30
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
        training = Training(lr=lr, steps=STEPS, batch_size=batch_size)
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

file("check_documented", "no_docstring", "planted", lambda text: text.replace("Returns the model as it came.", "Mine"))
file("check_named_as_its_file", "other_name", "other", lambda text: text)
file(
    "check_imports_only_the_interface", "test_data", "planted", lambda s: s + "\nfrom ntbench.data import load_domain\n"
)
file("check_imports_only_the_interface", "package", "planted", lambda s: s + "\nfrom ntbench import data\n")
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
    training = Training(lr=3e-3, steps=STEPS, batch_size=32)
    return (model for _ in fit(model, ctx.target, training, ctx.generator("batches")))


@attack("check_stays_within_budget")
def yields_every_other_step(self: Any, model: nn.Module, ctx: Context) -> Iterator[nn.Module]:
    return (adapted for step, adapted in enumerate(self.tuned(model, ctx)) if step % 2)


@attack("check_stays_within_budget")
def takes_large_batches(self: Any, model: nn.Module, ctx: Context) -> Any:
    return self.tuned(model, ctx, batch_size=2 * 2560 // STEPS)


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


def failed(method: Method) -> list[str]:
    return [finding.check for finding in examine(method) if finding.status == "failed"]


@pytest.mark.parametrize(("check", "build"), [pytest.param(c, b, id=f"{c}-{title}") for c, title, b in PLANTS])
def test_exactly_the_planted_fault_is_found(check: str, build: Build, tmp_path: Path) -> None:
    assert failed(build(tmp_path)) == [check]


def test_every_check_has_a_plant() -> None:
    checks = {name for module in MODULES for name in vars(module) if name.startswith("check_")} - {"check_method"}
    assert {check for check, *_ in PLANTS} == checks


@pytest.mark.parametrize("base", [Protecting, Tuning])
def test_a_sound_method_passes(base: type[Method]) -> None:
    assert failed(variant(base)()) == []


def test_every_check_says_what_it_wants_in_one_line() -> None:
    summaries = [check.__doc__ for method in (Protecting(), Tuning()) for check in checks_of(method)]
    assert all(text and "\n" not in text and len(text) <= 120 for text in summaries)


def forgetful(expected: dict[str, str], protect: Callable[[Any, nn.Module, Context], nn.Module]) -> Method:
    method: Method = variant(Protecting, expected_failures=expected, protect=protect)()
    return method


KNOWN = {"check_keeps_source_accuracy": "forgets on purpose"}


def test_a_declared_failure_is_expected() -> None:
    findings = {f.check: f for f in examine(forgetful(KNOWN, lambda self, model, ctx: ctx.fresh(10)))}
    assert findings["check_keeps_source_accuracy"].status == "expected"
    assert findings["check_keeps_source_accuracy"].reason == "forgets on purpose"
    assert {f.status for f in findings.values()} == {"ok", "expected"}


def test_a_declared_failure_that_passes_is_a_failure() -> None:
    findings = {f.check: f for f in examine(forgetful(KNOWN, lambda self, model, ctx: model))}
    assert findings["check_keeps_source_accuracy"].status == "failed"
    assert "remove it" in findings["check_keeps_source_accuracy"].reason


def test_a_crash_is_never_expected() -> None:
    def crash(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
        raise RuntimeError("planted")

    (finding,) = [f for f in examine(forgetful({"check_runs": "crashes"}, crash)) if f.check == "check_runs"]
    assert finding.status == "failed" and "RuntimeError: planted" in finding.reason


def test_a_method_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(self: Any, model: nn.Module, ctx: Context) -> nn.Module:
        while True:
            pass

    monkeypatch.setattr(contract, "SECONDS", 0.5)
    *_, last = examine(forgetful({}, hang))
    assert last.check == "check_runs" and "longer than 0.5 seconds" in last.reason


def test_settings_are_put_back_after_a_careless_method() -> None:
    before = torch.get_num_threads()
    for build in [build for check, _, build in PLANTS if check == "check_restores_settings"]:
        failed(build(Path()))
    assert torch.get_num_threads() == before
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_parametrize_names_cases_and_marks_expected_failures_as_strict() -> None:
    mark = parametrize_with_checks([forgetful(KNOWN, lambda self, model, ctx: model)]).mark
    cases = {case.id: case for case in mark.args[1]}
    (xfail,) = cases["planted-check_keeps_source_accuracy"].marks
    assert xfail.name == "xfail" and xfail.kwargs["strict"] and xfail.kwargs["reason"] == "forgets on purpose"
    assert [case.id for case in cases.values() if not case.marks] == [
        f"planted-{check.__name__}" for check in checks_of(Protecting()) if check.__name__ not in KNOWN
    ]


def test_ids_tell_configurations_apart() -> None:
    scaled = variant(Protecting, scale=1e-3)
    mark = parametrize_with_checks([scaled(), scaled(scale=2.0)]).mark
    assert {case.id.split("-check")[0] for case in mark.args[1]} == {"planted", "planted(scale=2.0)"}


def checked(name_or_file: str) -> tuple[bool, str]:
    out = io.StringIO()
    return check_method(name_or_file, Console(file=out, width=200)), out.getvalue()


def test_check_method_prints_a_line_a_check() -> None:
    fine, text = checked("scratch")
    assert fine
    assert "check_repeats: ok" in text
    assert "check_keeps_source_accuracy: expected failure  nothing that was learnt" in text


def test_check_method_examines_a_built_in_by_its_file() -> None:
    file = Path(__file__).parent.parent / "defenses" / "none.py"
    assert checked(str(file))[0]


def test_check_method_fails_with_the_remedy(tmp_path: Path) -> None:
    text = SOURCE.replace("import Defense", "import Defense, register").replace("class", "@register\nclass")
    text = text.replace('"planted"', '"planted_and_checked"\n    dead: int = 1\n    quick = {"dead": 2}')
    (tmp_path / "planted_and_checked.py").write_text(text, encoding="utf-8")
    fine, text = checked(str(tmp_path / "planted_and_checked.py"))
    assert not fine
    assert "check_settings_are_read: FAILED  the hyper-parameter 'dead' is never read; use it or remove it" in text


def test_check_method_refuses_unknown_names() -> None:
    with pytest.raises(UserError, match="unknown method 'finetun'; did you mean 'finetune'"):
        checked("finetun")
