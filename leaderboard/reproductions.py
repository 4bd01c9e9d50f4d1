"""Published runs by the papers' own protocols: one file a suite, from which every claim is worked out again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from ntbench.errors import UserError
from ntbench.measure.reproduced import Release, Reproduction, Run
from ntbench.report.files import write_whole
from ntbench.suite import Suite
from ntbench.types import MethodSpec, Result, digest

from .schema import Checked, read


class Reproduced(Checked):
    """What a suite's rows and attacks with a protocol are, and what came of every run."""

    schema_version: Literal[1] = 1
    suite: Suite
    methods: tuple[MethodSpec, ...]
    data: dict[str, str]
    versions: dict[str, str]
    runs: tuple[Run, ...]
    releases: tuple[Release, ...]

    @property
    def reproduction(self) -> Reproduction:
        """Return what numbers are worked out from."""
        return Reproduction(self.suite, self.runs, self.releases)

    def text(self) -> str:
        """Return the file's text: sorted keys, one run a line, the same for the same content."""
        content = self.content
        content["checksum"] = digest(content)
        lines = {
            name: [json.dumps(item, sort_keys=True) for item in content.pop(name)] for name in ("runs", "releases")
        }
        head = json.dumps(content | {key: [] for key in lines}, indent=1, sort_keys=True, allow_nan=False)
        for name, items in lines.items():
            listed = ",\n".join(f"  {item}" for item in items)
            head = head.replace(f'\n "{name}": []', f'\n "{name}": [\n{listed}\n ]', 1)
        return head + "\n"


def publish(results: Iterable[Result], suite: Suite, folder: Path) -> list[Path]:
    """Write the runs of a suite that have a protocol to one file of a folder, none where it has no such runs.

    The file tells what has run, whole or not; numbers that lack a run are missing from the page. The same results give
    the same bytes.
    """
    found = list(results)
    whole = Reproduction.of(found, suite)
    if not whole.runs:
        return []
    origins = [r.provenance for r in found if r.provenance]
    file = Reproduced(
        suite=suite,
        methods=_methods(found),
        data={name: value for origin in origins for name, value in sorted(origin.data.items())},
        versions={name: value for origin in origins for name, value in sorted(origin.versions.items())},
        runs=tuple(whole.runs),
        releases=tuple(whole.releases),
    )
    path = folder / f"{suite.name}.json"
    write_whole(path, file.text().encode())
    return [path]


def read_all(folder: Path) -> dict[str, Reproduction]:
    """Return the published reproductions of a folder by suite; raises UserError on a file that is not as published."""
    found = {path: read(path, Reproduced) for path in sorted(folder.glob("*.json"))}
    for path, file in found.items():
        if not file.intact:
            raise UserError(f"{path}: checksum = {file.checksum!r}: does not fit the content; publish again")
    return {file.suite.name: file.reproduction for file in found.values()}


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the published reproductions of a folder, nothing where there are none."""
    try:
        read_all(folder)
    except UserError as error:
        return str(error).splitlines()
    return []


def _methods(results: Sequence[Result]) -> tuple[MethodSpec, ...]:
    specs = {(spec.kind, spec.label, r.cell.mask): spec for r in results for spec in (r.cell.defense, r.cell.attack)}
    known = {json.dumps(spec.model_dump(mode="json"), sort_keys=True): spec for _, spec in sorted(specs.items())}
    return tuple(known.values())
