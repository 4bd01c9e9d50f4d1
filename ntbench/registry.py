"""Names to classes: one table behind three doors (entry point, file, decorator).

Our own methods are imported. Where an engine runs, foreign ones are not: it opens the registry's `door`, behind which
another process imports them and says what they are, and `Foreign` stands for them here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, get_args

from ntbench.errors import UserError, unknown
from ntbench.sources import code_digest, source_file
from ntbench.types import Kind, MethodSpec

GROUP = "ntbench.methods"
KINDS = (*get_args(Kind), "domain", "metric")
OURS = ("ntbench.defenses", "ntbench.attacks")
T = TypeVar("T", bound=type)


class Door(Protocol):
    """What stands between this process and foreign code."""

    def describe(self, file: str) -> list[dict[str, Any]]:
        """Return what the methods of a file, or with an empty name those of installed packages, say of themselves."""

    def stand_in(self, described: dict[str, Any]) -> type[Any]:
        """Return a class that stands for a described method."""


class CollisionError(UserError):
    """Two methods share a name; whichever won would be the wrong one for somebody."""


class Registry:
    """The defenses and attacks, and the domains and metrics of one's own, that are known to this process."""

    def __init__(self) -> None:
        """Start empty."""
        self._classes: dict[tuple[str, str], type[Any]] = {}
        self._installed: set[tuple[str, str]] = set()
        self._loaded: dict[str, list[type[Any]]] = {}
        self._discovered = False
        self.door: Door | None = None
        """Set by the engine; without it foreign code is imported here, by whoever trusts it."""

    def register(self, cls: T) -> T:
        """Add a class under its kind and name; a second class of the same name is refused."""
        kind, name = _identity(cls)
        held = self._classes.get((kind, name))
        if held is not None and source_file(held) != source_file(cls):
            raise CollisionError(
                f"{kind} {name!r} of {source_file(cls)} is already registered by {source_file(held)}; rename one"
            )
        self._classes[kind, name] = cls
        return cls

    def get(self, kind: str, name: str) -> type[Any]:
        """Return the class of a name."""
        self.discover()
        if (kind, name) not in self._classes:
            raise unknown(kind, name, self.names(kind))
        return self._classes[kind, name]

    def held(self, kind: str, name: str) -> type[Any] | None:
        """Return the class of a name where it is known already; nothing is looked for or imported."""
        return self._classes.get((kind, name))

    def names(self, kind: str) -> list[str]:
        """Return the registered names of one kind."""
        self.discover()
        return sorted(name for held, name in self._classes if held == kind)

    def create(self, spec: MethodSpec) -> Any:
        """Build the method that a spec describes, and refuse it if its code has changed since."""
        cls = self.get(spec.kind, spec.name)
        if code_digest(cls) != spec.code:
            raise UserError(f"the code of {spec.kind} {spec.name!r} in {source_file(cls)} changed; plan the run again")
        return cls(**spec.params)

    def discover(self) -> None:
        """Take in what the installed packages offer; a broken package is a warning, not an end."""
        if self._discovered:
            return
        self._discovered = True
        decorated = set(self._classes)
        points = entry_points(group=GROUP)
        for point in points:
            if point.value in OURS or self.door is None:
                self._import(point)
        # What somebody imported from an installed package before is installed all the same.
        packages = tuple(f"{point.value.partition(':')[0]}." for point in points)
        ours = {
            key for key, cls in self._classes.items() if key not in decorated or cls.__module__.startswith(packages)
        }
        self._installed = ours
        if self.door and any(point.value not in OURS for point in points):
            before = set(self._classes)
            _guarded("of another package", partial(self._let_in, ""))
            self._installed = ours | (self._classes.keys() - before)

    def foreign(self) -> list[type[Any]]:
        """Return the installed classes that are not ours."""
        self.discover()
        return [cls for key, cls in self._classes.items() if key in self._installed and not is_ours(cls)]

    def others(self) -> bool:
        """Return whether this process has, or would find installed, methods that are not our own files."""
        return bool(self.packages()) or not all(map(is_ours, self._classes.values()))

    def packages(self) -> dict[str, str]:
        """Return what other installed packages offer, by the name of the module, with the version of the package."""
        points = (point for point in entry_points(group=GROUP) if point.value not in OURS)
        return {point.value: getattr(getattr(point, "dist", None), "version", "") for point in points}

    def of_others(self, kind: str) -> list[type[Any]]:
        """Return the classes of a kind of which there is none of ours, by name, without importing ours for it."""
        if self.packages():
            self.discover()
        return [cls for (held, _), cls in sorted(self._classes.items()) if held == kind]

    def load_plugin(self, path: str) -> list[type[Any]]:
        """Take in one file, unless it is known as it is now, and return the methods that it registers."""
        self.discover()
        file = Path(path).resolve()
        name = _module_name(file)
        if name not in self._loaded:
            before = dict(self._classes)
            if self.door is None:
                _import_file(file, name)
            else:
                self._let_in(str(file))
            self._loaded[name] = [cls for key, cls in self._classes.items() if before.get(key) is not cls]
        if not self._loaded[name]:
            raise UserError(f"plug-in {path!r} registers nothing; decorate its class with @register")
        return self._loaded[name]

    def _import(self, point: EntryPoint) -> None:
        loaded = _guarded(point.value, point.load)
        if inspect.isclass(loaded):
            _guarded(point.value, partial(self.register, loaded))
        for module in pkgutil.iter_modules(getattr(loaded, "__path__", [])):
            if not module.name.startswith("_"):
                name = f"{point.value}.{module.name}"
                _guarded(name, partial(importlib.import_module, name))

    def _let_in(self, file: str) -> None:
        assert self.door is not None
        # Where foreign code comes from is known here, and is not for it to say: its name and hash rest on that.
        known = {"file": file, "module": _module_name(Path(file))} if file else {}
        for described in self.door.describe(file):
            stand_in = self.door.stand_in(described | known)
            held = self._classes.get(_identity(stand_in))
            if held is not None and is_ours(held) and not file:
                raise CollisionError(f"{stand_in.kind} {stand_in.name!r} of an installed package is ours; rename it")
            self.register(stand_in)

    @property
    def plugins(self) -> tuple[str, ...]:
        """Return the files that a worker process must load to know the same methods."""
        files = {source_file(cls) for key, cls in self._classes.items() if key not in self._installed}
        return tuple(sorted(file for file in files if Path(file).is_file()))


def is_ours(cls: type[Any]) -> bool:
    """Return whether a class belongs to ntbench itself."""
    return cls.__module__.rpartition(".")[0] in OURS


def _identity(cls: type[Any]) -> tuple[str, str]:
    kind, name = getattr(cls, "kind", None), getattr(cls, "name", None)
    if kind not in KINDS or not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__}: name={name!r} of kind={kind!r} cannot be registered; "
            "derive from Defense or Attack, from Dataset or Metric, and set `name` to a lower snake case name"
        )
    return str(kind), name


def _guarded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except CollisionError:
        raise
    except Exception as error:
        warnings.warn(f"plug-in {name} is left out: {type(error).__name__}: {error}", stacklevel=3)


def _module_name(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"plug-in {str(file)!r} does not exist; give the path of a Python file")
    # The content is part of the name, so that a long-lived worker takes up an edited file.
    return f"ntbench_plugin_{hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()[:8]}"


def import_file(path: str) -> ModuleType:
    """Return the module of a Python file, imported once as it is now; raises UserError where it cannot be imported."""
    file = Path(path).resolve()
    name = _module_name(file)
    if name not in sys.modules:
        _import_file(file, name)
    return sys.modules[name]


def _import_file(file: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {str(file)!r} is not a Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise UserError(f"plug-in {str(file)!r} cannot be imported: {type(error).__name__}: {error}") from error


registry = Registry()
