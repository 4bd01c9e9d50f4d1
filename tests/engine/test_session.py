from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ntbench.engine.grid
from ntbench.engine.manifest import read_manifest
from ntbench.engine.runner import Runner
from ntbench.engine.session import Request, Session, Workers, cache_folder, open_run
from ntbench.errors import UserError
from ntbench.registry import Registry
from ntbench.types import Cell, Result

RAN: list[tuple[str, str]] = []

PLUGIN = '''
"""Frail: fails while a file beside it exists."""
from pathlib import Path
from ntbench.method import Defense, register

@register
class Frail(Defense):
    """Fail or not."""
    name = "frail"

    def protect(self, model, ctx):
        if Path(__file__).with_name("broken").exists():
            raise RuntimeError("no luck")
        return model
'''


def in_this_process(
    cells: list[Cell], settings: ntbench.engine.grid.Settings, protected: Callable[[], None]
) -> Iterator[Result]:
    """Stand in for the grid, without the start of workers."""
    for job in ntbench.engine.grid._jobs(cells):
        runner: Runner = ntbench.engine.grid._runner(settings)
        RAN.append((job.stage, job.cell.defense.label))
        if job.stage == "protect":
            runner.protected(job.cell)
            protected()
        else:
            yield runner.run(job.cell)


@pytest.fixture(autouse=True)
def quick(own_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntbench.engine.grid, "execute", in_this_process)
    RAN.clear()


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    smoke = Path(ntbench.engine.grid.__file__).parents[1] / "protocols" / "smoke.toml"
    file = tmp_path / "smoke.toml"
    file.write_text(smoke.read_text(encoding="utf-8"), encoding="utf-8")
    return file


def run(suite: Path, folder: Path, retry_failed: bool = False, **request: Any) -> tuple[int, Session]:
    """Return how many cells were computed and the session."""
    RAN.clear()
    session = Session(folder, Console(quiet=True))
    session.run(Request(suite=str(suite), **request), Workers(), retry_failed)
    return sum(stage == "attack" for stage, _ in RAN), session


def test_a_finished_run_computes_nothing_again(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(suite_file, folder)[0] == 24
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix in (".safetensors", ".json")}
    assert run(suite_file, folder)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before and len(before) == 6


def test_a_rerun_imports_no_torch(smoke: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from ntbench.engine.session import Request, Session, Workers\n"
        "session = Session(Path(sys.argv[1]), Console())\n"
        "session.run(Request(suite='smoke'), Workers()); assert session.page_is_current()\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'joblib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(smoke)], capture_output=True, text=True)
    assert "nothing to do: all 24 cells" in done.stdout, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_more_rows_and_seeds_add_to_a_run(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(suite_file, folder, defenses=("none",))[0] == 18
    assert run(suite_file, folder, defenses=("ntl",))[0] == 6
    computed, session = run(suite_file, folder)
    assert computed == 0
    assert {result.cell.defense.label for result in session.results()} == {"none", "scratch", "magnitude", "ntl"}
    assert len(session.results()) == 24
    computed, session = run(suite_file, folder, seeds=(7,))
    assert computed == 24
    assert {result.cell.seed for result in session.results()} == {0, 7}, "a folder holds one board, which grows"
    assert session.suite.seeds == (0, 7)


def test_failed_cells_stay_until_they_are_asked_for_again(suite_file: Path, tmp_path: Path) -> None:
    folder, plugin = tmp_path / "run", tmp_path / "frail.py"
    plugin.write_text(PLUGIN)
    (tmp_path / "broken").touch()
    request: dict[str, Any] = {"plugins": (str(plugin),), "defenses": ("frail",)}
    computed, session = run(suite_file, folder, **request)
    failed = [result for result in session.results() if result.status == "error"]
    assert computed == 24 and len(failed) == 4
    assert {result.error.splitlines()[0] for result in failed} == {"protection failed: RuntimeError: no luck"}
    (tmp_path / "broken").unlink()
    assert run(suite_file, folder, **request)[0] == 0
    computed, session = run(suite_file, folder, retry_failed=True, **request)
    assert computed == 4 and {label for _, label in RAN} == {"frail"}
    assert {result.status for result in session.results()} == {"ok", "inapplicable"}
    assert run(suite_file, folder, retry_failed=True, **request)[0] == 0


def test_a_method_whose_code_changed_is_computed_again(suite_file: Path, tmp_path: Path) -> None:
    folder, plugin = tmp_path / "run", tmp_path / "frail.py"
    plugin.write_text(PLUGIN)
    request: dict[str, Any] = {"plugins": (str(plugin),), "defenses": ("frail",)}
    assert run(suite_file, folder, **request)[0] == 24
    plugin.write_text(PLUGIN + "\n# changed\n")
    computed, session = run(suite_file, folder, **request)
    assert computed == 6 and {label for _, label in RAN} == {"frail"}
    assert len(session.results()) == 24 and len(session.store.results()) == 30


def test_a_plugins_defenses_are_added_where_none_is_chosen(suite_file: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "frail.py"
    plugin.write_text(PLUGIN)
    _, session = run(suite_file, tmp_path / "run", plugins=(str(plugin),))
    assert [row for entry in session.suite.defenses for row in entry.rows] == [
        "none",
        "scratch",
        "magnitude",
        "ntl",
        "frail",
    ]


def test_a_second_command_on_the_folder_is_refused(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    session = Session(folder, Console(quiet=True))
    code = "import sys, time; from pathlib import Path; from ntbench.engine.store import Store\n"
    code += "with Store(Path(sys.argv[1])).writing():\n    print('held', flush=True); time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing"):
            session.run(Request(suite=str(suite_file)), Workers())
        holder.kill()


def test_an_empty_folder_holds_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        open_run(tmp_path, Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_can_be_read(suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> Iterator[Result]:
        for count, result in enumerate(in_this_process(*given)):
            if count == 3:
                raise KeyboardInterrupt
            yield result

    folder = tmp_path / "run"
    monkeypatch.setattr(ntbench.engine.grid, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(suite_file, folder)
    assert len(open_run(folder, Console(quiet=True)).results()) == 3
    monkeypatch.setattr(ntbench.engine.grid, "execute", in_this_process)
    assert run(suite_file, folder)[0] == 21


def test_requests_differ_in_what_they_ask_for(suite_file: Path) -> None:
    name = str(suite_file)
    asked = [
        Request(name),
        Request(name, defenses=("ntl",)),
        Request(name, plugins=("x.py",)),
        Request(name, seeds=(5,)),
        Request(name, horizon=16.0),
    ]
    assert len({request.key for request in asked}) == len(asked)
    assert Request(name).key == Request(name).key
    assert Request(name, plugins=("x.py",)).key == Request(name, plugins=(str(Path.cwd() / "x.py"),)).key


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NTBENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("NTBENCH_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "ntbench"


def test_limits_come_from_the_present_suite(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(suite_file, folder)
    suite_file.write_text(suite_file.read_text() + "\n[limits]\ncell_seconds = 5\n")
    assert run(suite_file, folder)[0] == 0
    held = read_manifest(folder)
    assert held and held.suite.limits.cell_seconds == 5
