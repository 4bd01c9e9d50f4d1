"""Where the numbers come from: suite, data, versions and recipes, without the folders of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from ntbench.report.display import number
from ntbench.report.sentences import defended
from ntbench.suite import Suite
from ntbench.types import Arch, Columns, MethodSpec, Result, columns_of, domain_label


def suite_facts(suite: Suite, detectable: float) -> dict[str, str]:
    """Return what decides a suite's numbers by name, and the smallest leak that they tell from 0."""
    params = ", ".join(f"{name} {plain(value)}" for name, value in suite.arch.params.items())
    counts = {task.title: ", ".join(str(level.samples) for level in task.levels) for task in suite.tasks}
    training = [f"{name} {plain(value)}" for name, value in suite.pretrain.model_dump().items() if value not in ("", 0)]
    return {
        "Suite": f"{suite.protocol}: {suite.summary}",
        "Architecture": f"{suite.arch.name} {params}".strip(),
        **_preprocessing(suite.arch),
        **({"Undefended": _undefended(suite)} if suite.releases else {"Pretraining": ", ".join(training)}),
        "Seeds": ", ".join(map(str, suite.seeds)),
        **{f"Target samples, {title}": listed for title, listed in counts.items()},
        **{f"Defended, {task.title}": said for task in suite.tasks if (said := defended(task))},
        "Horizon": f"{suite.horizon:g} T90, budgets a factor of {suite.scored:g} apart",
        "Share of source in the track source": f"{suite.source_share:g}",
        "Most source drop": f"{100 * suite.max_drop:g} points",
        "Smallest leak told from 0": number(detectable),
    }


def _preprocessing(arch: Arch) -> dict[str, str]:
    if arch.mean is None or arch.std is None:
        return {}
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (arch.mean, arch.std))
    return {"Preprocessing": f"mean {mean}, std {std}"}


def _undefended(suite: Suite) -> str:
    files = suite.releases[0].undefended
    return ", ".join(plain(file) for file in files) or "not given, so that there is neither leak nor verdict"


def provenance(results: Sequence[Result]) -> dict[str, dict[str, str]]:
    """Return digests of data, versions, devices and the recipe of every method by name; empty kinds are left out."""
    found: dict[str, dict[str, set[str]]] = {"Data": {}, "Versions": {}, "Devices": {}}
    columns = columns_of(results)
    for origin in filter(None, columns.parts["provenance"].present):
        for name, value in origin.data.items():
            found["Data"].setdefault(_split(name), set()).add(value)
        for name, value in origin.versions.items():
            found["Versions"].setdefault(name, set()).add(value)
        found["Devices"].setdefault("device", set()).add(origin.place)
    said = {kind: {name: ", ".join(sorted(names[name])) for name in sorted(names)} for kind, names in found.items()}
    said["Every defense and attack with its hyper-parameters"] = _recipes(columns)
    return {kind: names for kind, names in said.items() if names}


def plain(value: Any) -> str:
    """Return a value as text, of an absolute path its last part alone."""
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else str(value)


def _split(name: str) -> str:
    domain, _, split = name.rpartition("/")
    return f"{domain_label(domain)}/{split}" if domain else name


def _recipes(columns: Columns) -> dict[str, str]:
    # A row of several files has a recipe a seed.
    found: dict[tuple[str, str], dict[str, None]] = {}
    for spec in (spec for kind in ("defense", "attack") for spec in columns.parts[kind].present):
        found.setdefault((spec.kind, spec.label), {})[_recipe(spec)] = None
    return {f"{kind} {label}": "; ".join(said) for (kind, label), said in sorted(found.items(), reverse=True)}


def _recipe(spec: MethodSpec) -> str:
    parts = [f"{spec.name} version {spec.version}", f"code {spec.code}"]
    return ", ".join(parts + [f"{name} {plain(value)}" for name, value in spec.params.items()])
