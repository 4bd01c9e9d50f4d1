from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated import in_t90
from rich.console import Console

import ntbench.engine.grid
from ntbench.engine.calibrate import SEEDS
from ntbench.engine.manifest import read_manifest
from ntbench.engine.request import Request, Workers
from ntbench.engine.runner import Runner
from ntbench.engine.session import Session, cache_folder, open_run
from ntbench.engine.store import Store
from ntbench.engine.told import failures
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
    computed, session = run(suite_file, folder)
    assert computed == 24
    assert {result.status for result in session.results()} == {"ok", "inapplicable"}
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix in (".safetensors", ".json")}
    assert run(suite_file, folder)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before and len(before) == 6


def test_a_rerun_imports_no_torch(smoke: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from ntbench.engine.request import Request, Workers\n"
        "from ntbench.engine.session import Session\n"
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
    assert {result.cell.seed for result in session.results()} == {0, 7} and session.suite.seeds == (0, 7)


def test_a_request_for_a_part_keeps_the_whole_board(suite_file: Path, tmp_path: Path) -> None:
    """`run --defense ntl --seed 0` in a finished folder finds everything there and takes nothing from the plan."""
    folder = tmp_path / "run"
    _, session = run(suite_file, folder, seeds=(0, 1))
    stamp, suite, results = session.stamp, session.suite, session.results()
    computed, session = run(suite_file, folder, defenses=("ntl",), seeds=(0,))
    assert computed == 0 and session.results() == results and len(results) == 48
    assert session.stamp == stamp, "the page stays what it was"
    assert {row for entry in session.suite.defenses for row in entry.rows} == {"none", "scratch", "magnitude", "ntl"}
    assert session.suite.seeds == suite.seeds == (0, 1)


def test_another_horizon_is_another_board(suite_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(suite_file, folder, defenses=("none",))
    computed, session = run(suite_file, folder, defenses=("none",), horizon=4.0)
    assert computed == 18
    assert {in_t90(result.cell).horizon for result in session.results()} == {4.0}, "grids are not mixed"
    assert len(session.store.results()) == 36, "what was there is kept"


def test_a_stamp_follows_the_plan_and_the_results(suite_file: Path, tmp_path: Path) -> None:
    _, session = run(suite_file, tmp_path / "run", defenses=("none",))
    before = session.stamp
    session.page.parent.mkdir(parents=True)
    session.page.write_text("a page")
    assert not session.page_is_current()
    session.mark_page()
    assert session.page_is_current()
    failed = session.results()[0].model_copy(update={"status": "error"})
    session.store.add(failed)
    assert session.stamp != before and not session.page_is_current()


def test_more_samples_than_the_attackers_pool_holds_are_refused_before_anything_runs(
    suite_file: Path, tmp_path: Path
) -> None:
    suite_file.write_text(suite_file.read_text().replace("samples = 96", "samples = 601"))
    with pytest.raises(UserError) as caught:
        run(suite_file, tmp_path / "run")
    told = "the data of 'digits to digits_m' cannot be prepared: 601 samples are asked for, of 600; "
    assert str(caught.value) == f"{told}give a count in between"
    assert RAN == []


def test_a_suite_tunes_before_it_protects_and_goes_on_where_it_was(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = suite_file.read_text().replace("version = 2", "version = 2\ntuned = 2", 1)
    before, block, after = text.partition('[[defenses]]\nname = "magnitude"')
    suite_file.write_text(before + after[after.index("[[defenses]]") :])
    assert block
    folder, real = tmp_path / "run", Store.add

    def killed(store: Store, result: Result) -> None:
        real(store, result)
        if len(store.statuses()) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(suite_file, folder)
    assert {stage for stage, _ in RAN} == {"protect", "attack"} and read_manifest(folder) is None
    monkeypatch.setattr(Store, "add", real)
    computed, session = run(suite_file, folder)
    # None, scratch and each of two trials face three attacks at two counts; the board has three rows.
    assert computed == 24 - 8 + 18
    assert len(Store(folder / "tuning").statuses()) == 24
    tuning = {result.cell.defense.label: result.cell.defense.tuning for result in session.results()}
    assert tuning["none"] is tuning["scratch"] is None
    found = tuning["ntl"]
    assert found is not None and found.trials == 2 and found.steps > 0
    assert run(suite_file, folder)[0] == 0
    trials = Session(folder, Console(quiet=True)).tune(Request(suite=str(suite_file), defenses=("ntl",)), 2, Workers())
    assert {place: spec.tuning for place, spec in trials.items()} == {("digits-digits_m", "ntl"): tuning["ntl"]}
    assert RAN == [], "the command takes what the run has found"


def test_what_has_nothing_to_tune_is_refused(suite_file: Path, tmp_path: Path) -> None:
    session = Session(tmp_path / "run", Console(quiet=True))
    with pytest.raises(UserError, match="none: nothing to tune in smoke-2; name a defense with fields that the suite"):
        session.tune(Request(suite=str(suite_file), defenses=("none",)), 2, Workers())


def test_failed_cells_are_named_with_their_reasons(cell: Cell) -> None:
    fine = Result(cell=cell, status="ok")
    assert failures([fine, Result(cell=cell, status="inapplicable"), Result(cell=cell, status="unusable")]) == ""
    failed = Result(cell=cell, status="diverged", error="\nthe loss is nan at step 3\nTraceback")
    assert failures([fine, failed]).splitlines() == [
        "1 of 2 cells failed; `--retry-failed` runs them again:",
        "  diverged: digits-digits_m, none, finetune, dense, 12, 0: the loss is nan at step 3",
    ]
    assert failures([failed] * 12).splitlines()[-1] == "  and 2 more"


def test_failed_cells_stay_until_they_are_asked_for_again(suite_file: Path, tmp_path: Path) -> None:
    folder, plugin = tmp_path / "run", tmp_path / "frail.py"
    plugin.write_text(PLUGIN)
    (tmp_path / "broken").touch()
    request: dict[str, Any] = {"plugins": (str(plugin),), "defenses": ("frail",)}
    computed, session = run(suite_file, folder, **request)
    failed = [result for result in session.results() if result.status == "error"]
    assert computed == 24 and len(failed) == 4
    (reason,) = {result.error.splitlines()[0] for result in failed}
    assert reason.startswith("protection failed: ") and reason.endswith("RuntimeError: no luck")
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
    rows = [row for entry in session.suite.defenses for row in entry.rows]
    assert rows == ["none", "scratch", "magnitude", "ntl", "frail"]


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
        Request("quick"),
        Request(name, defenses=("ntl",)),
        Request(name, attacks=("lora",)),
        Request(name, plugins=("x.py",)),
        Request(name, seeds=(5,)),
        Request(name, horizon=16.0),
    ]
    assert len({request.key for request in asked}) == len(asked)
    assert Request(name).key == Request("smoke").key, "a copy of a suite is that suite"
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


def test_a_run_measures_what_its_suite_lacks_and_keeps_it(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntbench.engine.calibrate.GUESS", 1.0)
    monkeypatch.setattr("ntbench.engine.calibrate.LONGEST", 1.0)
    suite_file.write_text(suite_file.read_text().replace(", t90 = 1.5, plateau = 0.4", ""))
    folder = tmp_path / "run"
    _, session = run(suite_file, folder, defenses=("none",))
    levels = session.suite.tasks[0].levels
    assert levels[0].t90 == 1.0 and levels[1].t90 is not None and levels[1].plateau is not None
    measured = Store(folder / "calibration").results()
    assert {(r.cell.seed, r.cell.samples, r.cell.defense.name) for r in measured} == {
        (seed, 96, "scratch") for seed in SEEDS
    }
    assert {in_t90(r.cell).t90 for r in session.results() if r.cell.samples == 96} == {levels[1].t90}
    assert run(suite_file, folder, defenses=("none",))[0] == 0, "what is measured is not measured again"


def test_measuring_anew_forgets_what_is_frozen(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntbench.engine.calibrate.GUESS", 1.0)
    monkeypatch.setattr("ntbench.engine.calibrate.LONGEST", 1.0)
    suite = Session(tmp_path, Console(quiet=True)).measured(Request(suite=str(suite_file)), Workers())
    assert [level.samples for level in suite.tasks[0].levels] == [12, 96]
    assert [level.plateau for level in suite.tasks[0].levels] != [0.3, 0.4]
