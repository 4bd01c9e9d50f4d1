from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from ntbench.engine.store import Store

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Inside = Callable[..., Any]

HEAVY = ["torch", "timm", "pandas", "matplotlib", "seaborn", "sklearn", "scipy", "joblib"]
COMMANDS = [
    [],
    ["run"],
    ["attack"],
    ["export"],
    ["zoo"],
    ["attack-zoo"],
    ["list"],
    ["check"],
    ["calibrate"],
    ["report"],
    ["publish"],
    ["leaderboard"],
    ["leaderboard", "validate"],
    ["leaderboard", "render"],
    ["leaderboard", "verify"],
]

PLUGIN = '''
"""Scale: multiplies the head by a number."""
from ntbench.method import Defense, register

@register
class Scale(Defense):
    """Multiply the head."""
    name = "scale"
    factor: float = 2.0

    def protect(self, model, ctx):
        model.get_classifier().weight.data.mul_(self.factor)
        return model
'''


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "ntbench")
def test_help_costs_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom ntbench.cli import app\n"
        f"try:\n    app({[*command, '--help']!r})\n"
        f"finally:\n    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout and "HEAVY []" in done.stdout


def test_no_command_shows_the_help(ntbench: Cli) -> None:
    done = ntbench()
    assert "Usage" in done.stdout + done.stderr and "run" in done.stdout + done.stderr


LEFT_AT_ONCE = """
import atexit, threading, time
from ntbench.cli import main
atexit.register(lambda: print("the interpreter was taken down"))
threading.Thread(target=time.sleep, args=(60,)).start()
main()
"""


@pytest.mark.parametrize(("words", "code", "said"), [(["--version"], 0, "ntbench "), (["run", "smok"], 2, "error: ")])
def test_the_command_leaves_at_once_with_its_code_and_all_that_it_said(words: list[str], code: int, said: str) -> None:
    """Neither a thread that goes on nor what stands in line at the end keeps it."""
    done = subprocess.run([sys.executable, "-c", LEFT_AT_ONCE, *words], capture_output=True, text=True, timeout=50)
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith(said) and "taken down" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_no_success() -> None:
    program = "import sys; from ntbench.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program, "list"], stdout=full, stderr=subprocess.DEVNULL)
    assert done.returncode != 0


def test_version(ntbench: Cli) -> None:
    assert ntbench("--version").stdout == f"ntbench {importlib.metadata.version('ntbench')}\n"


def test_list_shows_everything_with_one_line_each(inside: Inside, tmp_path: Path) -> None:
    plugin = tmp_path / "scale.py"
    plugin.write_text(PLUGIN)
    done = inside("list", "--plugin", plugin)
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line.partition(" ")[2].strip() for line in done.stdout.splitlines() if line.strip()}
    assert {"none", "scratch", "magnitude", "ntl", "finetune", "digits", "syn", "smoke", "quick"} <= lines.keys()
    assert lines["scale"].startswith("Scale: multiplies the head by a number. Needs")
    assert {name for name, line in lines.items() if not line} == {"defenses", "attacks", "domains", "suites"}


@pytest.mark.parametrize("options", [[], ["--seed", "5", "--seed", "5"], ["--defense", "ntl"]])
def test_a_dry_run_counts_and_writes_nothing(inside: Inside, tmp_path: Path, options: list[str]) -> None:
    done = inside("run", "smoke", "--dry-run", "--jobs", 2, "--out", tmp_path / "run", *options)
    # An attack that keeps zeros does not apply to defenses that release none.
    cells, planned, protections = 18, 24, 4
    assert f"{cells} of {planned} cells to run, {protections} protections" in done.stdout, done.output
    assert "minutes" in done.stdout and not (tmp_path / "run").exists()


MISTAKES: dict[str, tuple[list[str], str]] = {
    "suite": (["run", "smok"], "unknown suite 'smok'; did you mean 'smoke'?"),
    "suite file": (["run", "{tmp}/none.toml"], "none.toml' does not exist; give the path"),
    "defense": (["run", "smoke", "--defense", "sophn"], "unknown defense 'sophn'; did you mean 'sophon'?"),
    "plug-in": (
        ["run", "smoke", "--plugin", "{tmp}/none.py"],
        "none.py' does not exist; give the path of a Python file",
    ),
    "plug-in that breaks": (["run", "smoke", "--plugin", "{tmp}/broken.py"], "cannot be imported: NameError"),
    "plug-in of nothing": (
        ["list", "--plugin", "{tmp}/empty.py"],
        "registers nothing; decorate its class with @register",
    ),
    "device": (["run", "smoke", "--device", "gpu"], "device 'gpu' cannot be used here"),
    "scheduler": (["run", "smoke", "--dask", "nowhere"], "no Dask scheduler answers at 'nowhere'"),
    "seed": (["run", "smoke", "--seed", "-1"], "Invalid value for '--seed'"),
    "jobs": (["run", "smoke", "--jobs", "0"], "Invalid value for '--jobs'"),
    "report": (["report", "{tmp}/empty"], "holds no run; start one with `ntbench run SUITE --out FOLDER`"),
    "publish": (["publish", "{tmp}/empty"], "holds no run; start one"),
    "nothing to tune": (["tune", "none", "--suite", "smoke", "--trials", "2"], "none: nothing to tune in smoke-2"),
    "tune what nobody knows": (["tune", "ntll", "--suite", "smoke", "--trials", "2"], "unknown defense 'ntll'"),
    "trials": (["tune", "ntl", "--suite", "smoke", "--trials", "0"], "Invalid value for '--trials'"),
    "damaged manifest": (["report", "{tmp}/damaged"], "manifest.json' is damaged"),
    "out is a file": (["run", "smoke", "--out", "{tmp}/empty.py"], "cannot be written"),
}
EDITS: dict[str, tuple[str, str, str]] = {
    "unknown defense": ('name = "ntl"', 'name = "ntll"', "unknown defense 'ntll'; did you mean 'ntl'?"),
    "unknown attack": ('name = "finetune"', 'name = "finetun"', "unknown attack 'finetun'; did you mean 'finetune'?"),
    "unknown hyper-parameter": ("tune_steps = 5", "tune_stepz = 5", "'tune_stepz'; did you mean 'tune_steps'?"),
    "unknown optimizer": (
        'optimizer = "adam", lr',
        'optimizer = "adan_", lr',
        "unknown optimizer 'adan_'; did you mean 'adan",
    ),
    "unknown architecture": ("cnns_bn", "cnns_bm", "unknown architecture 'cnns_bm'; did you mean 'cnns_bn'?"),
    "unknown domain": (
        'target = "digits_m"',
        'target = "digitsm"',
        "unknown domain 'digitsm'; did you mean 'digits_m'?",
    ),
    "missing folder": ('target = "digits_m"', 'target = "folder:/does/not/exist"', "/does/not/exist"),
    "unknown key": ("version = 2", "verzion = 2", "verzion = 2: unknown key"),
    "syntax": ("version = 2", "version 2", "not valid TOML"),
}


@pytest.mark.parametrize("name", [*MISTAKES, *EDITS])
def test_a_mistake_is_one_message_without_a_traceback(inside: Inside, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("undefined")
    words, expected = MISTAKES.get(name, (["run", "{tmp}/mine.toml"], ""))
    if name in EDITS:
        smoke = resources.files("ntbench.protocols").joinpath("smoke.toml").read_text(encoding="utf-8")
        old, new, expected = EDITS[name]
        assert old in smoke
        (tmp_path / "mine.toml").write_text(smoke.replace(old, new))
    out = ["--out", tmp_path / "run"] if words[0] == "run" and "--out" not in words else []
    done = inside(*(word.format(tmp=tmp_path) for word in words), *out)
    assert done.exit_code == 2, done.output
    assert expected in done.stderr
    assert "error" in done.stderr.lower() and "Traceback" not in done.output


def test_a_mistake_is_the_same_in_a_process_of_its_own(ntbench: Cli, tmp_path: Path) -> None:
    done = ntbench("run", "smok", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "run").exists()
    assert done.stderr.strip() == "error: unknown suite 'smok'; did you mean 'smoke'?"


WAITING = '''
"""Waiting: takes no step before a file beside it exists."""
import time
from pathlib import Path
from ntbench.method import Attack, create_optimizer, register

@register
class Waiting(Attack):
    """Wait."""
    name = "waiting"
    at_horizon_alone = True

    def attack(self, model, ctx):
        while not Path(__file__).with_name("go").exists():
            time.sleep(0.05)
        yield model
'''


def started(folder: Path) -> subprocess.Popen[str]:
    """Start a run of `smoke` of which some cells wait."""
    suite, plugin = folder / "mine.toml", folder / "waiting.py"
    smoke = resources.files("ntbench.protocols").joinpath("smoke.toml").read_text(encoding="utf-8")
    suite.write_text(smoke + '\n[[attacks]]\nname = "waiting"\n')
    plugin.write_text(WAITING)
    # A test run in the background may have been told to ignore the signal, and would hand that on.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ntbench.cli import main; main()"
    )
    command = [sys.executable, "-u", "-c", code, "run", str(suite)]
    return subprocess.Popen(
        [*command, "--plugin", str(plugin), "--jobs", "2", "--out", str(folder / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "400"},
    )


@pytest.mark.parametrize("whole_group", [True, False], ids=["as a terminal sends it", "to the process alone"])
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path, whole_group: bool) -> None:
    process, store = started(tmp_path), Store(tmp_path / "run")
    while len(store.statuses()) < 2 and process.poll() is None:
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    told = re.search(r"interrupted: (\d+) finished cells are safe in .*/run; the same command goes on", output)
    assert told and "Traceback" not in output and "Warning" not in output, output
    held = len(store.results())
    assert 2 <= int(told[1]) <= held < 32
    with store.writing():
        assert len(store.statuses()) == held, "nobody goes on storing"
    (tmp_path / "go").touch()
    process = started(tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert len(store.results()) == 32


def test_the_terminal_shows_the_leaderboard_and_the_report(ntbench: Cli, smoke: Path) -> None:
    done = ntbench("run", "smoke", "--out", smoke)
    assert done.returncode == 0, done.stderr
    assert "nothing to do: all 24 cells" in done.stdout
    assert all(row in done.stdout for row in ("scratch", "magnitude", "ntl"))
    assert f"report: {smoke}/report/index.html" in done.stdout
    assert (smoke / "report" / "index.html").is_file() and (smoke / "report" / "results.csv").is_file()
