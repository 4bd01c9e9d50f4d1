"""Foreign code runs in a process of its own: whatever it does there ends with that process."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from ntbench.engine.apart import _cost
from ntbench.engine.foreign import Foreign
from ntbench.engine.frames import receive, send
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.errors import UserError
from ntbench.learn.meter import Cost
from ntbench.registry import Registry
from ntbench.sources import source_file
from ntbench.suite import AttackEntry, DefenseEntry, Limits, Suite
from ntbench.types import Result

HEAD = '''"""A plug-in."""
import ctypes, os, signal, subprocess, sys, time
import torch
from torch import nn
from ntbench.method import Attack, Context, Defense, Field, register

@register
class Planted(Defense):
    """Do what the body says."""

    name = "planted"
    scale: float = Field(default=1.0, gt=0)

    def protect(self, model, ctx):
        """Return a model."""
        head = model.get_classifier()
        with torch.no_grad():
            head.weight.mul_(0.5 * self.scale)
'''
HONEST = "        return model\n"
HOSTILE = {
    "exits": ("os._exit(0)", "ended"),
    "asks to exit": ("sys.exit(3)", "SystemExit"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", "ended"),
    "crashes": ("ctypes.string_at(0)", "ended"),
    "hangs": ("time.sleep(600)", "longer than"),
    "hangs deaf to signals": (
        "[signal.signal(s, signal.SIG_IGN) for s in (15, 14, 2)]; time.sleep(600)",
        "longer than",
    ),
    "takes all memory": ("x = [bytearray(2**26) for _ in range(400)]", "emory"),
    "hands over a string": ("return 'model'", "AttributeError"),
    "hands over another network": ("return nn.Linear(2, 2)", "weights"),
    "hands over holes": ("head.weight.data.fill_(float('nan')); return model", "not finite"),
    "closes everything": ("os.closerange(0, 4096)", "ended"),
    "speaks nonsense": ("[os.write(fd, b'x' * 64) for fd in range(3, 64) if _socket(fd)]; return model", ""),
    "has an error of a lone surrogate": ("raise ValueError('\\udcff')", "ValueError"),
    "has an error of thirty megabytes": ("raise ValueError('x' * 30_000_000)", "ValueError"),
    "refuses as a user would": ("from ntbench.errors import UserError; raise UserError('no')", "no"),
}
MORE = """
import stat

def _socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
"""

Run = Callable[..., Result]


@pytest.fixture
def run(foreign: Registry, tiny: Suite, tmp_path: Path, runner: Runner) -> Iterator[Run]:
    """Run one cell of a planted defense."""

    def result(body: str, seconds: float = 60, **params: float) -> Result:
        file = tmp_path / "planted.py"
        file.write_text(HEAD + f"        {body}\n" + HONEST + MORE)
        foreign.load_plugin(str(file))
        suite = tiny.model_copy(update={"defenses": (DefenseEntry(name="planted", params=params),)})
        limits = Limits(protect_seconds=seconds, cell_seconds=60, memory_mb=1024)
        return Runner(runner.store, runner.device, limits, runner.cache).run(plan(suite)[0])

    yield result


def test_an_honest_plug_in_gives_the_same_bits_as_in_this_process(
    run: Run, own_registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runner: Runner, tiny: Suite
) -> None:
    apart = run("pass")
    assert apart.status == "ok", apart.error
    monkeypatch.setattr(own_registry, "door", None)
    monkeypatch.setattr(own_registry, "_loaded", {})
    own_registry._classes.pop(("defense", "planted"))
    own_registry.load_plugin(str(tmp_path / "planted.py"))
    suite = tiny.model_copy(update={"defenses": (DefenseEntry(name="planted"),)})
    runner.store.forget_artifact(apart.cell.protect_key)
    here = runner.run(plan(suite)[0])
    assert here.cell == apart.cell
    assert (here.trajectory.test, here.trajectory.correct) == (apart.trajectory.test, apart.trajectory.correct)
    assert here.trajectory.flops == apart.trajectory.flops


@pytest.mark.parametrize("name", HOSTILE)
def test_what_it_does_ends_its_own_cell_alone(run: Run, name: str) -> None:
    body, reason = HOSTILE[name]
    start = time.monotonic()
    # Whoever ends by itself gets time enough for a loaded machine.
    found = run(body, seconds=5 if "hangs" in name else 60)
    assert found.status != "ok"
    assert reason in found.error
    assert len(found.error) < 50_000
    assert time.monotonic() - start < 60


def test_nothing_of_it_lives_on(run: Run, tmp_path: Path) -> None:
    marker, code = tmp_path / "alive", tmp_path / "stray.py"
    code.write_text(f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    body = f"subprocess.Popen([sys.executable, {str(code)!r}], start_new_session=True); time.sleep(4)"
    assert run(body).status == "ok"
    if marker.exists():
        for _ in range(50):
            if not Path(f"/proc/{marker.read_text()}").exists():
                break
            time.sleep(0.1)
        assert not Path(f"/proc/{marker.read_text()}").exists()


def test_who_ends_what_started_it_ends_nobody_else(run: Run, runner: Runner) -> None:
    run("os.kill(os.getppid(), signal.SIGKILL)")
    found = run("pass")
    assert found.status == "ok", found.error


def test_what_it_changes_globally_stays_with_it(run: Run) -> None:
    found = run("torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.set_num_threads(3)")
    assert found.status == "ok", found.error
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


def test_neither_test_data_nor_a_scorer_are_in_its_memory(run: Run) -> None:
    body = (
        "import gc; held = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.ndim == 4]; "
        "sizes = {len(t) for t in held}; assert 400 not in sizes, sizes; "
        "assert 'ntbench.engine.bench' not in sys.modules and 'ntbench.engine.store' not in sys.modules"
    )
    found = run(body)
    assert found.status == "ok", found.error


def test_parameters_are_checked_behind_the_door(run: Run) -> None:
    with pytest.raises(UserError, match="scale"):
        run("pass", scale=-1.0)
    with pytest.raises(UserError, match="scal"):
        run("pass", scal=1.0)


@pytest.mark.parametrize("text", ["import os; os._exit(0)", "import sys; sys.exit()", "raise KeyboardInterrupt"])
def test_an_import_that_ends_the_process_is_told(foreign: Registry, tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError, match=r"cannot be (used|imported)"):
        foreign.load_plugin(str(file))


def test_an_attack_says_which_architectures_it_cannot_work_on(
    foreign: Registry, tiny: Suite, tmp_path: Path, runner: Runner
) -> None:
    file = tmp_path / "attacking.py"
    file.write_text(
        "from ntbench.method import Attack, register\n\n\n@register\n"
        "class Picky(Attack):\n"
        "    name = 'picky'\n\n"
        "    def unfit(self, model):\n"
        "        return f'{type(model).__name__} is not for me'\n"
    )
    foreign.load_plugin(str(file))
    cell = plan(tiny.model_copy(update={"attacks": (AttackEntry(name="picky"),)}))[0]
    found = runner.run(cell)
    assert found.status == "inapplicable" and found.error.endswith(" is not for me")


def test_a_plug_in_cannot_be_taken_for_a_built_in(foreign: Registry, tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    told = source_file(foreign.get("attack", "finetune"))
    file.write_text(
        "from typing import ClassVar\n"
        "from ntbench.attacks.finetune import FineTune\n"
        "from ntbench.registry import registry\n\n\n"
        "class Fake(FineTune):\n"
        f"    origin_file: ClassVar[str] = {told!r}\n"
        "    __module__ = 'ntbench.attacks.finetune'\n\n\n"
        "registry.register(Fake)\n"
    )
    with pytest.raises(UserError, match=r"'finetune' of .*planted.py is already registered by .*finetune.py; rename"):
        foreign.load_plugin(str(file))


def test_no_plug_in_is_beside_another_one(run: Run, foreign: Registry, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(HEAD.replace("Planted", "Other").replace("planted", "other") + HONEST + MORE)
    foreign.load_plugin(str(other))
    found = run("raise ValueError(str(sorted(name for name in sys.modules if 'ntbench_plugin' in name)))")
    assert found.error.partition("\n")[0].count("ntbench_plugin_") == 1


def test_a_slow_reader_ends_nobody() -> None:
    ours, theirs = socket.socketpair()

    def answer() -> None:
        receive(theirs, 2**20)
        send(theirs, {"status": "ok"}, {"w": torch.zeros(10**6)})

    other = threading.Thread(target=answer, daemon=True)
    other.start()
    send(ours, {"ask": "something"})
    time.sleep(0.5)
    late = time.monotonic() + 60
    facts, tensors = receive(ours, 2**23, lambda: None if time.monotonic() < late else pytest.fail("no answer"))
    other.join()
    ours.close()
    theirs.close()
    assert facts == {"status": "ok"} and tensors["w"].shape == (10**6,)


def test_who_does_not_read_is_watched() -> None:
    ours, theirs = socket.socketpair()

    def watch() -> None:
        raise TimeoutError("too long")

    with ours, theirs, pytest.raises(TimeoutError, match="too long"):
        send(ours, {}, {"w": torch.zeros(10**6)}, watch)


@pytest.mark.parametrize("change", [{"seconds": inf}, {"seconds": -1.0}, {"flops": 2**60}, {"steps": 1.5}])
def test_costs_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    told = asdict(Cost(1, 2, 3, 4.0))
    assert _cost({"cost": told}) == Cost(1, 2, 3, 4.0)
    with pytest.raises(RuntimeError, match="which is no"):
        _cost({"cost": told | change})


def test_stand_ins_say_what_the_methods_say(foreign: Registry, tmp_path: Path) -> None:
    file = tmp_path / "planted.py"
    file.write_text(HEAD + HONEST)
    (cls,) = foreign.load_plugin(str(file))
    stand_in: Any = cls
    assert issubclass(cls, Foreign)
    assert (stand_in.kind, stand_in.name, stand_in.needs()) == ("defense", "planted", "source labels")
    assert str(file) in foreign.plugins
    assert "planted" not in {name for name in os.listdir(tmp_path) if name.endswith(".pyc")}
