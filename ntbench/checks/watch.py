"""What a run leaves behind and what it looks at besides its arguments: settings, state, files, the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ntbench.method import Method
from ntbench.sources import source_file

_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's choice of deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
}
_CODE = (".py", ".pyc", ".so")
_listeners: list[Callable[[str], None]] = []


@dataclass
class Traces:
    """What a run left behind; filled while it goes on."""

    disturbed: set[str] = field(default_factory=set)
    remembered: set[str] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)
    reseeded: bool = False
    _before: dict[str, Any] = field(default_factory=lambda: {name: get() for name, (get, _) in _SETTINGS.items()})

    def note_settings(self) -> None:
        """Compare the global settings with those at the start."""
        self.disturbed |= {name for name, (get, _) in _SETTINGS.items() if get() != self._before[name]}

    def note_seed(self, given: int) -> None:
        """Compare the seed of torch's global generator with the one that was given."""
        self.reseeded |= torch.initial_seed() != given

    def restore_settings(self) -> None:
        """Put the global settings back."""
        for name, (_, put) in _SETTINGS.items():
            put(self._before[name])


@contextmanager
def watching(method: Method, traces: Traces) -> Iterator[None]:
    """Note what a block leaves behind; everything but the method is put back."""
    held = _state(method)
    try:
        folder = Path(source_file(type(method))).parent
        with _lookups(folder, traces.looked_up):
            yield
    finally:
        traces.note_settings()
        traces.restore_settings()
    after = _state(method)
    traces.remembered |= {name for name in held.keys() | after.keys() if held.get(name) != after.get(name)}


def _state(method: Method) -> dict[str, str]:
    """Return what plain values the instance, its class and its module hold."""
    cls = type(method)
    owners = {
        # Not vars(method), which a method that records what is read from it would take for a reading of all.
        "self": object.__getattribute__(method, "__dict__"),
        f"class {cls.__name__}": vars(cls),
        "module": vars(sys.modules[cls.__module__]),
    }
    plain = (bool, int, float, str, tuple, list, dict, set, torch.Tensor, type(None))
    return {
        f"{name} of {owner}": repr(value)
        for owner, values in owners.items()
        for name, value in values.items()
        if not name.startswith(("__", "_abc_")) and isinstance(value, plain)
    }


@contextmanager
def _lookups(folder: Path, found: set[str]) -> Iterator[None]:
    """Note every file and environment variable that code of a folder reads itself."""
    environ: Any = type(os.environ)
    original = environ.__getitem__

    def note(what: str) -> None:
        if _reader() == folder:
            found.add(what)

    def recorded(self: Any, key: str) -> Any:
        note(f"the environment variable {key}")
        return original(self, key)

    _listen()
    _listeners.append(note)
    environ.__getitem__ = recorded
    try:
        yield
    finally:
        environ.__getitem__ = original
        _listeners.remove(note)


@cache
def _listen() -> None:
    # The interpreter keeps an audit hook for good, so there is one, and it sleeps while nobody listens.
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _listeners and not str(arguments[0]).endswith(_CODE):
        for listener in _listeners:
            listener(f"the file {arguments[0]}")


def _reader() -> Path | None:
    """Return the folder of the innermost code that belongs neither to the standard library nor to this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and name.split(".")[0] not in sys.stdlib_module_names:
            return Path(frame.f_code.co_filename).parent
        frame = frame.f_back
    return None
