"""A zoo copied from a run and one made from recipes, and a new attack on every release of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Inside
from ntbench.leaderboard.publish import publish
from rich.console import Console

import ntbench.engine.grid
from ntbench.engine.session import open_run
from ntbench.engine.zoo import read_zoo
from ntbench.learn.cards import load_release, read_card, weights_digest
from ntbench.learn.models import read_weights
from ntbench.types import Cell, Result

STAGES: list[str] = []
ATTACK = '''
"""Freeze: trains a new head alone."""
from ntbench.method import Attack, Context, Field, Fit, Training, register, reset_head

@register
class Freeze(Attack):
    """Train the last tensors."""
    name = "freeze"
    lr: float = Field(default=0.01, gt=0)

    def fit_of(self, model, ctx):
        reset_head(model, ctx.target_classes, ctx.generator("head"))
        training = Training(optimizer="adam", lr=self.lr, schedule="cooldown", steps=ctx.steps, batch_size=16)
        return Fit(model, ctx.target, training, ctx.generator("batches"), list(model.parameters())[-2:])
'''


def in_this_process(
    cells: list[Cell], settings: ntbench.engine.grid.Settings, protected: Callable[[], None]
) -> Iterator[Result]:
    """Stand in for the grid, without the start of workers."""
    for job in ntbench.engine.grid._jobs(cells, settings.attack):
        runner = ntbench.engine.grid._runner(settings)
        if job.stage == "protect":
            if not runner.store.artifact_path(job.cell.protect_key).exists():
                STAGES.append("protect")
            runner.protected(job.cell)
            protected()
        else:
            STAGES.append("attack")
            yield runner.run(job.cell)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntbench.engine.grid, "execute", in_this_process)
    STAGES.clear()


@pytest.fixture
def board(smoke: Path, tmp_path: Path) -> Path:
    """A leaderboard folder with the run of smoke."""
    session = open_run(smoke, Console(quiet=True))
    publish(session.results(), session.suite, tmp_path / "leaderboard" / "results")
    return tmp_path / "leaderboard"


@pytest.fixture
def zoo(inside: Inside, smoke: Path, board: Path, tmp_path: Path) -> Path:
    done = inside("zoo", smoke, "--out", tmp_path / "zoo", "--board", board)
    assert done.exit_code == 0, done.output
    assert "4 releases of smoke-2" in done.output and "all of these are as published" in done.output
    return tmp_path / "zoo"


def digests(folder: Path) -> dict[str, str]:
    return {file.stem: weights_digest(read_weights(file)[0]) for file in folder.glob("artifacts/*.safetensors")}


def test_a_zoo_holds_every_release_and_the_clean_model_of_a_run_with_their_cards(zoo: Path, smoke: Path) -> None:
    assert STAGES == [], "a copied zoo trains nothing"
    assert digests(zoo) == digests(smoke)
    kept = read_zoo(zoo).releases
    assert {(k.cell.defense.label, k.cell.seed) for k in kept} == {
        (n, 0) for n in ("none", "scratch", "magnitude", "ntl")
    }
    for file in (zoo / "artifacts").glob("*.safetensors"):
        release = load_release(file)
        assert release.card["sha256"] == digests(zoo)[file.stem]
        assert release.card == json.loads(file.with_suffix(".json").read_text())
    clean = read_card(zoo / "artifacts" / f"{kept[0].cell.pretrain_key}.safetensors")
    assert clean["defense"] == "clean model" and clean["sha256"] == next(
        k.sha256 for k in kept if k.cell.defense.label == "none"
    )


def test_recipes_make_the_same_zoo_bit_for_bit_and_what_is_sound_is_kept(
    zoo: Path, board: Path, inside: Inside, tmp_path: Path
) -> None:
    again = ["zoo", "smoke", "--out", tmp_path / "again", "--board", board]
    done = inside(*again)
    assert done.exit_code == 0, done.output
    assert STAGES == ["protect"] * 4 and digests(tmp_path / "again") == digests(zoo)
    kept = {
        k.cell.defense.label: tmp_path / "again/artifacts" / f"{k.cell.protect_key}.safetensors"
        for k in read_zoo(zoo).releases
    }
    kept["ntl"].unlink()
    shutil.copyfile(kept["none"], kept["magnitude"])  # sound, but the weights of another release
    kept["scratch"].write_bytes(kept["scratch"].read_bytes()[:-8])
    before = kept["none"].stat().st_mtime_ns
    STAGES.clear()
    done = inside(*again)
    assert done.exit_code == 0, done.output
    assert STAGES == ["protect"] * 3 and digests(tmp_path / "again") == digests(zoo)
    assert kept["none"].stat().st_mtime_ns == before


def test_a_release_that_is_not_the_published_one_is_told(zoo: Path, board: Path, inside: Inside) -> None:
    file = board / "results/smoke/ntl/digits-digits_m.json"
    held = json.loads(file.read_text())
    held["protections"]["0"]["source_after"] = 0.5
    held["data"]["digits_m/test"] = "feed"
    file.write_text(json.dumps(held))
    done = inside("zoo", zoo, "--out", zoo, "--board", board)
    assert done.exit_code == 2 and "holds no run" in done.output
    done = inside("zoo", "smoke", "--out", zoo, "--board", board)
    assert done.exit_code == 1 and STAGES == []
    assert "ntl, seed 0, digits-digits_m: the data of digits_m/test differ" in done.output
    assert "ntl, seed 0, digits-digits_m: source_after differ" in done.output and "none, seed" not in done.output


def test_a_new_attack_meets_every_release_and_ends_in_its_board(
    zoo: Path, board: Path, smoke: Path, inside: Inside, tmp_path: Path
) -> None:
    file = tmp_path / "freeze.py"
    file.write_text(ATTACK)
    words = ["attack-zoo", file, "--zoo", zoo, "--board"]
    done = inside(*words, board)
    assert done.exit_code == 0, done.output
    assert STAGES == ["attack"] * 8, "two counts on four releases, and nothing is protected"
    assert "freeze wins on " in done.output and "of 3 rows" in done.output
    table = pd.read_csv(zoo / "added-freeze.csv").set_index("defense")
    assert set(table.index) == {"none", "magnitude", "ntl"} and table["rise"].notna().all()
    assert (table["steps"] == (8 + 12) / 2).all(), "the horizon of the suite's two counts"
    again = inside(*words, smoke)
    assert again.exit_code == 0 and STAGES == ["attack"] * 8 and again.output == done.output


def test_a_registered_attack_stands_alone_where_there_is_no_board(zoo: Path, inside: Inside, tmp_path: Path) -> None:
    done = inside("attack-zoo", "redraw", "--zoo", zoo, "--board", tmp_path / "nowhere")
    assert done.exit_code == 0, done.output
    assert "holds no board of smoke: the attack stands alone" in done.output
    table = pd.read_csv(zoo / "added-redraw.csv")
    assert len(table) == 3 and table["rise"].isna().all() and table["uplift"].notna().all()


def test_mistakes_are_told(zoo: Path, inside: Inside, tmp_path: Path) -> None:
    def said(*words: Any) -> str:
        done = inside(*words)
        assert done.exit_code == 2, done.output
        return str(done.output)

    (tmp_path / "defense.py").write_text(ATTACK.replace("Attack", "Defense").replace("fit_of(self", "protect(self"))
    assert "holds no zoo; make one with" in said("attack-zoo", "redraw", "--zoo", tmp_path)
    assert "unknown attack 'redrew'; did you mean 'redraw'?" in said("attack-zoo", "redrew", "--zoo", zoo)
    assert "holds no attack" in said("attack-zoo", tmp_path / "defense.py", "--zoo", zoo)
    assert "unknown suite 'smokey'" in said("zoo", "smokey", "--out", tmp_path / "z")
    key = read_zoo(zoo).releases[0].cell.protect_key
    (zoo / "artifacts" / f"{key}.safetensors").unlink()
    assert "is not in" in said("attack-zoo", "redraw", "--zoo", zoo) and STAGES == []
    (zoo / "zoo.json").write_text("{}")
    assert "is damaged" in said("attack-zoo", "redraw", "--zoo", zoo)
