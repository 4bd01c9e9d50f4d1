from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ntbench.engine import apart, sandbox
from ntbench.errors import UserError


def allowed() -> bool:
    try:
        sandbox._check()
    except UserError:
        return False
    return True


needs_bubblewrap = pytest.mark.skipif(not allowed(), reason="needs bubblewrap and namespaces")

PRYING = """
import os, socket, torch
from ntbench.method import Defense, register

def tried(work):
    try:
        return str(work())
    except OSError as error:
        return type(error).__name__

found = [
    tried(lambda: open(SECRET).read()),
    tried(lambda: open("/proc/%d/environ" % OUTSIDE, "rb").read() and "an environment"),
    tried(lambda: socket.create_connection(("127.0.0.1", PORT), 5)),
    tried(lambda: open(__file__, "a")),
    tried(lambda: open(os.path.join(os.path.dirname(torch.__file__), "x"), "w")),
    os.environ.get("NTBENCH_SECRET", "no such variable"),
]

@register
class Prying(Defense):
    name = "prying"

__doc__ = "; ".join(found)
"""


@pytest.fixture
def sandboxed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_asked", True)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def plugin(tmp_path: Path, listener: int, monkeypatch: pytest.MonkeyPatch) -> str:
    secret = tmp_path / "home" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("the test labels")
    monkeypatch.setenv("NTBENCH_SECRET", "a token")
    file = tmp_path / "prying.py"
    file.write_text(f"SECRET, OUTSIDE, PORT = {str(secret)!r}, {os.getpid()}, {listener}\n{PRYING}")
    return str(file)


def test_without_the_sandbox_foreign_code_reads_what_the_user_can_read(plugin: str) -> None:
    [method] = apart.describe(plugin)
    # Its own variables are those of the process that it is a copy of, which may be older than this test.
    assert method["text"].startswith("the test labels; an environment; ")


@needs_bubblewrap
def test_the_sandbox_hides_files_processes_network_and_environment(plugin: str, sandboxed: None) -> None:
    [method] = apart.describe(plugin)
    secret, process, network, own, packages, variable = method["text"].split("; ")
    assert (secret, process) == ("FileNotFoundError", "FileNotFoundError")
    assert network in ("ConnectionRefusedError", "OSError")
    assert own in ("OSError", "PermissionError") and packages in ("OSError", "PermissionError")
    assert variable == "no such variable"


@needs_bubblewrap
def test_nobody_finds_the_notes_of_another_one(tmp_path: Path, sandboxed: None) -> None:
    file = tmp_path / "noting.py"
    file.write_text(f"""
import os
from ntbench.method import Defense, register

__doc__ = str([os.path.lexists(folder + "/notes") for folder in {sandbox.WRITABLE!r}])
for folder in {sandbox.WRITABLE!r}:
    os.makedirs(folder + "/notes/closed", exist_ok=True)
    open(folder + "/notes/closed/note", "w").write("seen")
    os.chmod(folder + "/notes/closed", 0)
for folder in ("/", "/dev/", "/usr/"):
    try:
        open(folder + "note", "w")
        __doc__ = folder + " can be written"
    except OSError:
        pass

@register
class Noting(Defense):
    name = "noting"
""")
    for _ in range(2):
        [method] = apart.describe(str(file))
        assert method["text"] == "[False, False]"


@needs_bubblewrap
def test_the_watchdog_ends_what_runs_in_the_sandbox(tmp_path: Path, sandboxed: None) -> None:
    file = tmp_path / "endless.py"
    file.write_text("while True:\n    pass\n")
    bounds, late = apart.Bounds(seconds=1), pytest.raises(TimeoutError, match="longer than 1 seconds")
    with late, apart.child(bounds, (str(file),)) as line:
        child = line.child
        assert Path(f"/proc/{child}").exists(), "its id is the one that it has out here"
        line.ask({"ask": "describe", "file": str(file)})
        line.answer()
    assert state(child) in ("Z", "gone")


def state(process: int) -> str:
    """Return the letter of a process's state, after the moment that its end takes."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            found = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
            if found != "Z":
                time.sleep(0.1)
                continue
            return found
        return "gone"
    return found


def test_without_bubblewrap_the_remedy_is_told(tmp_path: Path) -> None:
    program = "from ntbench.cli import main; main()"
    words = ["run", "smoke", "--sandbox", "--out", str(tmp_path / "run")]
    command, environment = [sys.executable, "-c", program, *words], os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "install the package `bubblewrap`" in done.stderr
    assert not (tmp_path / "run").exists()
