"""`pytest --ntbench FILE`: every check of the contract on every method of a file, as a test of its own.

The decorator `ntbench.checks.parametrize_with_checks` does the same inside a test file. Nothing of ntbench is imported
before a file is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ntbench.checks import Check
    from ntbench.method import Method


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    group = parser.getgroup("ntbench", "the contract of non-transferable learning's methods")
    group.addoption(
        "--ntbench",
        action="append",
        default=[],
        metavar="FILE",
        help="Examine all that this file registers; alone, nothing else is collected. Repeatable.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the files, and the usual tests only where they are named as well."""
    files = [str(file) for file in _files(config)]
    if missing := [file for file in files if not Path(file).is_file()]:
        raise pytest.UsageError(f"--ntbench {missing[0]}: there is no such file; give a Python file with methods")
    if files:
        named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
        config.args = [*named, *files]


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the place of the test module that a named file would otherwise be."""
    if module_path not in _files(parent.config):
        return None
    return Methods.from_parent(parent, path=module_path)


class Methods(pytest.File):
    """The methods of a file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for every check of every method."""
        from ntbench.checks import checks_of
        from ntbench.checks.contract import check_of
        from ntbench.errors import UserError
        from ntbench.method import Method
        from ntbench.registry import registry

        try:
            classes = registry.load_plugin(str(self.path))
        except UserError as error:
            raise self.CollectError(str(error)) from None
        for cls in classes:
            method = issubclass(cls, Method)
            subject: Any = cls(**cls.quick) if method else cls
            for check in checks_of(subject) if method else [check_of(cls)]:
                yield Contract.from_parent(self, name=f"{cls.name}-{check.__name__}", method=subject, check=check)


class Contract(pytest.Item):
    """One check of one method, or of the class of a domain or metric."""

    def __init__(self, *, method: Method | type, check: Check, **given: Any) -> None:
        """Take what is checked; an expected failure is a strict xfail."""
        super().__init__(**given)
        self.method, self.check = method, check
        reason = getattr(method, "expected_failures", {}).get(check.__name__)
        if reason is not None:
            self.add_marker(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))

    def runtest(self) -> None:
        """Make the check."""
        self.check(self.method)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the check's own words, and a traceback where the method broke."""
        return str(excinfo.value) if isinstance(excinfo.value, AssertionError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return where the method stands and what was checked."""
        return self.path, None, self.name


def _files(config: pytest.Config) -> list[Path]:
    return [(config.invocation_params.dir / name).resolve() for name in config.getoption("--ntbench")]
