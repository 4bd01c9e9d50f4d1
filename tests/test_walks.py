"""From an empty folder: the walk of CONTRIBUTING for an attack, and one file with a domain, an attack and a metric."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import LEVELS, Inside

import ntbench.engine.grid as grid
from ntbench.types import Cell, Result

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SUITE = """
name = "tiny"
version = 1
summary = "two counts"
seeds = [0]
arch.name = "cnns_bn"
paper.attack = "finetune"
pretrain = {{ steps = 3, batch_size = 16 }}
tasks = [{{ source = "digits", target = "{target}", image_size = 8, levels = [{levels}] }}]
defenses = [{{ name = "none" }}, {{ name = "scratch" }}, {{ name = "magnitude" }}]
attacks = [{{ name = "finetune", params = {{ batch_size = 8 }} }}]
"""
PLUGIN = '''"""Ramps: a domain, an attack that trains the head alone, and a metric. No paper."""
import numpy as np
from ntbench.method import Attack, Dataset, Fit, Metric, Raw, Training, register, reset_head


@register
class Ramps(Dataset):
    """Two classes of ramps."""

    name = "ramps"

    def build(self, image_size):
        labels = np.arange(120, dtype=np.int64) % 2
        images = np.tile(np.arange(image_size, dtype=np.uint8), (120, image_size, 1))
        images[labels == 1] += 100
        return Raw(2, (images, labels), (images, labels), (images, labels))


@register
class Head(Attack):
    """Train a new head."""

    name = "new_head"

    def fit_of(self, model, ctx):
        reset_head(model, ctx.target_classes, ctx.generator("head"))
        training = Training(optimizer="adam", lr=0.01, schedule="cooldown", steps=ctx.steps, batch_size=8)
        return Fit(model, ctx.target, training, ctx.generator("batches"), list(model.parameters())[-2:])


@register
class Few(Metric):
    """Score of the release at the fewest samples."""

    name = "few"
    better = "lower"

    def measure(self, row):
        return row.release[0]
'''


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, where cells are computed in this process, without the start of workers."""

    def here(cells: list[Cell], settings: grid.Settings, protected: Callable[[], None]) -> Iterator[Result]:
        runner = grid._runner(settings)
        for job in grid._jobs(cells, settings.attack):
            if job.stage == "protect":
                runner.protected(job.cell)
                protected()
            else:
                yield runner.run(job.cell)

    monkeypatch.setattr(grid, "execute", here)
    monkeypatch.delenv("NTBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def suite(target: str) -> str:
    levels = ", ".join(
        "{ " + ", ".join(f"{name} = {value}" for name, value in level.items()) + " }" for level in LEVELS
    )
    return SUITE.format(target=target, levels=levels)


def walk() -> list[list[str]]:
    """Return the commands of the section on attacks, with a tiny suite in place of `quick`."""
    (block,) = re.findall(r"```console\n(.*?)```", TEXT.partition("## An attack\n")[2].partition("\n## ")[0], re.S)
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in block.splitlines()]
    return [["tiny.toml" if word == "quick" else word for word in line] for line in words]


def test_the_walk_of_an_attack_leads_to_its_end(empty: Path, inside: Inside) -> None:
    (empty / "tiny.toml").write_text(suite("digits_m"))
    commands = walk()
    assert [words[:2] for words in commands] == [
        ["ntbench", name] for name in ("new", "check", "run", "zoo", "attack-zoo")
    ]
    for _, *words in commands:
        done = inside(*words)
        assert done.exit_code == 0, (words, done.output)
    board = pd.read_csv(empty / "runs/tiny/report/leaderboard.csv")
    assert set(board["defense"]) == {"none", "scratch", "magnitude"} and set(board["attack"]) == {"my_attack"}
    added = pd.read_csv(empty / "zoos/quick/added-my_attack.csv")
    assert set(added["defense"]) == {"none", "magnitude"} and added["steps"].gt(0).all()
    assert (empty / "test_my_attack.py").exists() and "my_attack wins on " in done.output


def test_one_file_brings_a_domain_an_attack_and_a_metric(empty: Path, inside: Inside) -> None:
    (empty / "mine.toml").write_text(suite("ramps"))
    (empty / "mine.py").write_text(PLUGIN)
    words = ["run", "mine.toml", "--plugin", "mine.py", "--wide"]
    done = inside(*words)
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "digits to ramps: Metrics of plug-ins" in told and "few \N{DOWNWARDS ARROW}" in told, done.output
    board = pd.read_csv(empty / "runs/mine/report/leaderboard.csv").set_index("defense")
    assert board["faced"].tolist() == [2, 2, 2] and board["few_error"].isna().all()
    curves = pd.read_csv(empty / "runs/mine/report/curves.csv").set_index(["defense", "samples"])
    for defense in board.index:
        assert board.loc[defense, "few"] == pytest.approx(curves.loc[(defense, 12), "worst"], abs=1e-5)
    results = pd.read_csv(empty / "runs/mine/report/results.csv")
    assert set(results["attack"]) == {"finetune", "new_head"} and set(results["status"]) == {"ok"}
    again = inside(*words)
    assert again.exit_code == 0 and "nothing to do: all 12 cells" in again.output
    listed = inside("list", "--plugin", "mine.py").output
    assert all(f"\n{name} " in listed for name in ("ramps", "new_head", "few"))
