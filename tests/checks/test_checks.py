"""Plants one broken method per check and sees exactly that check fail."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from faults import PLANTS
from planted import SOURCE, Build, Protecting, Tuning, variant
from rich.console import Console
from torch import nn

from ntbench.checks import adaptation, conduct, contract, declaration, protection
from ntbench.checks.contract import check_method, checks_of, examine, parametrize_with_checks
from ntbench.errors import UserError
from ntbench.method import Context, Method

MODULES = (declaration, conduct, protection, adaptation, contract)


def failed(method: Method) -> list[str]:
    return [finding.check for finding in examine(method) if finding.status == "failed"]


@pytest.mark.parametrize(("check", "build"), [pytest.param(c, b, id=f"{c}-{title}") for c, title, b in PLANTS])
def test_exactly_the_planted_fault_is_found(check: str, build: Build, tmp_path: Path) -> None:
    assert failed(build(tmp_path)) == [check]


def test_every_check_has_a_plant() -> None:
    own = {name for module in MODULES for name, held in vars(module).items() if _is_own(held, module)}
    assert {check for check, *_ in PLANTS} == {name for name in own if name.startswith("check_")} - {
        "check_method",
        "check_of",
    }


def _is_own(held: object, module: ModuleType) -> bool:
    # Domains and metrics have checks of their own, which another module merely calls.
    return getattr(held, "__module__", "") == module.__name__


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
    file = Path(__file__).parents[2] / "defenses" / "none.py"
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
