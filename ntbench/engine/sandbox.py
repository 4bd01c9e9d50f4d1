"""What foreign code may see with `--sandbox`: bubblewrap shows it Python, its packages and its own file, read-only.

Nothing else of the file system is there: no home, no data, no results; a `/tmp` of its own vanishes with it. There is
no network, no other process, and none of the environment of whoever started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from ntbench.errors import UserError

SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives")
"""What a Python that the system installed needs, where it exists."""
ALONE = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--chdir", "/")
PLACES = ("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp", "--setenv", "HOME", "/tmp")
READ_ONLY = ("--remount-ro", "/dev", "--remount-ro", "/")
WRITABLE = ("/tmp", "/dev/shm")
"""The only folders in which something can be left."""
ACCELERATORS = "nvidia*"

_asked = False


def confine() -> None:
    """Put foreign code into the sandbox from here on.

    Raises UserError where bubblewrap is not installed, or may not make a sandbox.
    """
    global _asked
    _check()
    _asked = True


def confined() -> bool:
    """Return whether foreign code runs in the sandbox."""
    return _asked


def command(files: Iterable[str]) -> list[str]:
    """Return what a command is preceded by, so that it sees these files beside Python and its packages."""
    shown = [argument for path in _visible(files) for argument in ("--ro-bind-try", path, path)]
    devices = [argument for path in sorted(Path("/dev").glob(ACCELERATORS)) for argument in _device(path)]
    return ["bwrap", *ALONE, *PLACES, *shown, *devices, *READ_ONLY, "--setenv", "PATH", os.defpath]


def _device(path: Path) -> tuple[str, str, str]:
    return ("--dev-bind", str(path), str(path))


def _visible(files: Iterable[str]) -> Iterator[str]:
    import ntbench

    package = Path(ntbench.__file__).parent
    # Methods lie beside the package where it is installed from its repository.
    ours = [package, package.parent / "defenses", package.parent / "attacks"]
    paths = [*SYSTEM, sys.prefix, sys.base_prefix, *_packages(), *map(str, ours), *files]
    yield from dict.fromkeys(os.path.realpath(path) if path not in SYSTEM else path for path in paths)
    # Links to the interpreter and to the packages are shown as well as what they lead to.
    yield from (path for path in dict.fromkeys((sys.prefix, sys.base_prefix, *files)) if os.path.realpath(path) != path)


def _packages() -> list[str]:
    # A folder that merely holds a script, as the working directory does, is no folder of packages.
    return [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]


def clear() -> None:
    """Remove, inside the sandbox, what somebody left in its folders; what is shown there from outside stays."""
    for folder in WRITABLE:
        for path in Path(folder).iterdir():
            _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return path.unlink()
        path.chmod(0o700)
        for inner in path.iterdir():
            _remove(inner)
        path.rmdir()


@cache
def _check() -> None:
    if shutil.which("bwrap") is None:
        raise UserError(
            "--sandbox needs bubblewrap; install the package `bubblewrap`, which brings `bwrap`, or run without it"
        )
    tried = subprocess.run([*command(()), "true"], capture_output=True, text=True, errors="replace")
    if tried.returncode:
        said = tried.stderr.strip().partition("\n")[0]
        raise UserError(
            f"--sandbox: bubblewrap may not make a sandbox here ({said}); allow user namespaces, or run without it"
        )
