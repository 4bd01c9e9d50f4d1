from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ntbench
from ntbench.cli import app
from ntbench.engine.export import export
from ntbench.engine.session import open_run
from ntbench.errors import UserError
from ntbench.learn.cards import weights_digest
from ntbench.learn.models import pack, read_weights
from ntbench.learn.scoring import accuracy
from ntbench.tasks.data import load_domain


@pytest.fixture(scope="module")
def file(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "new" / "ntl.safetensors"
    done = CliRunner().invoke(app, ["export", str(smoke), "ntl", "--seed", "0", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_an_exported_release_is_the_runs_with_its_recipe_hashes_and_scores(file: Path, smoke: Path) -> None:
    results = open_run(smoke, Console(quiet=True)).results()
    result = next(r for r in results if r.cell.defense.label == "ntl" and r.protection)
    weights, _ = read_weights(smoke / "artifacts" / f"{result.cell.protect_key}.safetensors")
    release = ntbench.load_release(file)
    found, card = pack(release.model), release.card
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert card == json.loads(file.with_suffix(".json").read_text())
    assert card["recipe"] == result.cell.defense.recipe() and card["sha256"] == weights_digest(found)
    assert card["keys"]["protect"] == result.cell.protect_key and card["board"]["seeds"] == 1
    task = result.cell.task
    source = load_domain(task.source, task.image_size, None, task.train_samples, task.scored_samples)
    assert accuracy(release.model, source.test) == card["scores"]["source_after"]
    assert result.provenance and card["data"] == result.provenance.data


def test_weights_that_are_not_those_of_their_card_are_refused(file: Path, tmp_path: Path) -> None:
    with safe_open(file, framework="pt") as content:
        card = content.metadata()
    changed = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(changed, tmp_path / "w.safetensors", metadata=card)
    with pytest.raises(UserError, match="are not those of their card"):
        ntbench.load_release(tmp_path / "w.safetensors")


def test_a_file_without_a_card_needs_an_architecture(file: Path, tmp_path: Path) -> None:
    torch.save({"model": load_file(file)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="have no card; name `arch`, timm's name, and `classes`"):
        ntbench.load_release(tmp_path / "w.pt")
    release = ntbench.load_release(tmp_path / "w.pt", "cnns_bn", 10)
    assert release.card == {} and not release.model.training
    with pytest.raises(UserError, match="classifier has 10 classes and the source 4"):
        ntbench.load_release(tmp_path / "w.pt", "cnns_bn", 4)


@pytest.mark.parametrize(
    ("row", "seed", "task", "message"),
    [
        ("ntll", 0, "", "unknown row 'ntll'; did you mean 'ntl'?"),
        ("ntl", 7, "", r"'ntl' did not run at seed 7; seeds: \[0\]"),
        ("ntl", 0, "digits-digit", "unknown task 'digits-digit'; did you mean 'digits-digits_m'?"),
    ],
)
def test_what_a_run_does_not_have_is_told(
    row: str, seed: int, task: str, message: str, smoke: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export(open_run(smoke, Console(quiet=True)), row, seed, tmp_path / "w.safetensors", task)
    assert not (tmp_path / "w.safetensors").exists()


def test_what_the_package_does_not_offer_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lod_release'"):
        ntbench.lod_release  # noqa: B018
