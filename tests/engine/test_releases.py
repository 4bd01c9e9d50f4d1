from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from anyones import SIZE, Owner, owner
from rich.console import Console
from safetensors.torch import load_file, save_file

from ntbench.engine.bench import Bench
from ntbench.engine.manifest import fingerprints
from ntbench.engine.plan import manifest, plan
from ntbench.engine.releases import examine, prepared
from ntbench.engine.request import Request, Workers
from ntbench.engine.runner import Runner
from ntbench.engine.session import Session
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.learn.checkpoints import read_state
from ntbench.sources import file_digest
from ntbench.suite import Limits, Suite
from ntbench.types import Protection, unpack_bits

LEVELS = [{"samples": n, "t90": 0.5, "plateau": 0.5} for n in (6, 18)]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Owner:
    return owner(tmp_path_factory.mktemp("owner"))


def suite(mine: Owner, **changes: Any) -> Suite:
    row = {"label": "mine", "release": str(mine.release), "undefended": str(mine.clean)} | changes.pop("row", {})
    domains = {"source": f"folder:{mine.source}", "target": f"folder:{mine.target}"}
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "summary": "weights of somebody's",
        "seeds": [0],
        "paper": {"attack": "finetune"},
        "arch": {"name": "cnns_bn"},
        "tasks": [domains | {"image_size": SIZE, "shared": True, "levels": LEVELS}],
        "defenses": [{"name": "none"}, {"name": "scratch"}, row],
        "attacks": [{"name": "finetune", "params": {"batch_size": 8}}],
    }
    return Suite.model_validate(values | changes)


def protections(suite: Suite, folder: Path, cache: Path) -> dict[str, tuple[dict[str, torch.Tensor], Protection]]:
    runner = Runner(Store(folder), torch.device("cpu"), Limits(), cache)
    return {cell.defense.label: runner.protected(cell) for cell in {c.protect_key: c for c in plan(suite)}.values()}


def test_the_release_is_the_file_none_is_the_undefended_one_and_the_drop_lies_between_them(
    mine: Owner, tmp_path: Path, cache: Path
) -> None:
    found = protections(suite(mine), tmp_path, cache)
    for label, file in (("mine", mine.release), ("none", mine.clean)):
        wanted = read_state(file)
        assert all(torch.equal(wanted[name], tensor) for name, tensor in found[label][0].items())
    (_, before), (_, after) = found["none"], found["mine"]
    assert (after.source_before, after.clean) == (before.source_after, before.kept)
    assert after.source_after == unpack_bits(after.kept, 8).mean()
    assert after.needs == "not known" and after.protect_steps is None and after.pretrain_seconds is None
    scratch = found["scratch"][0]
    assert not torch.equal(scratch["head.weight"], found["none"][0]["head.weight"])


def test_without_undefended_weights_nobody_knows_a_drop(mine: Owner, tmp_path: Path, cache: Path) -> None:
    bare = suite(mine, row={"undefended": ()}, defenses=[{"name": "scratch"}, {"release": str(mine.release)}])
    after = protections(bare, tmp_path, cache)["file"][1]
    assert after.status == "ok" and after.source_before is None and after.source_after is not None


def test_several_files_are_one_a_seed(mine: Owner, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(mine.release).items()}, other)
    files = [str(mine.release), str(other)]
    cells = plan(suite(mine, seeds=[0, 1], row={"release": files}))
    seen = {
        (c.seed, c.defense.params["weights"], c.defense.params["sha256"]) for c in cells if c.defense.label == "mine"
    }
    assert seen == {(seed, file, file_digest(Path(file))) for seed, file in enumerate(files)}
    assert {c.pretrain.sha256 for c in cells} == {file_digest(mine.clean)}
    with pytest.raises(UserError, match="seed 2: 2 files of one defense are those of the seeds 0 to 1"):
        examine(suite(mine, seeds=[0, 2], row={"release": files}), tmp_path, "cpu", print)


def test_another_file_of_the_same_name_is_another_run(mine: Owner, tmp_path: Path) -> None:
    file = tmp_path / "release.safetensors"
    file.write_bytes(mine.release.read_bytes())
    made = suite(mine, row={"release": str(file)})
    before = plan(made)
    held = manifest(made, "asked", before)
    assert held.answers("asked") and {str(file), str(mine.clean)} <= held.sources.keys()
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)
    assert fingerprints(held.sources) != held.sources
    changed = {a.defense.label for a, b in zip(before, plan(made), strict=True) if a.key != b.key}
    assert changed == {"mine"}


def test_the_preprocessing_is_timms_where_rows_are_files(mine: Owner, tiny: Suite) -> None:
    resnet = suite(mine, arch={"name": "resnet18"})
    assert prepared(resnet).arch.mean == (0.485, 0.456, 0.406)
    assert prepared(tiny) == tiny


def stated(mine: Owner, accuracy: float, **arch: Any) -> Suite:
    return suite(mine, row={"source_accuracy": accuracy}, arch={"name": "cnns_bn"} | arch)


def test_what_files_reach_on_the_source_is_told_and_compared_with_what_is_stated(mine: Owner, cache: Path) -> None:
    told: list[str] = []
    examine(stated(mine, 0.9), cache, "cpu", told.append)
    assert [line.split(":")[0] for line in told] == ["clean.pt", "release.safetensors"]
    assert all("100.0% right on the 8 test images of source" in line for line in told)


def test_another_preprocessing_is_found(mine: Owner, cache: Path) -> None:
    away = {"mean": (4.0, -3.0, 4.0), "std": (0.1, 0.1, 0.1)}
    with pytest.raises(
        UserError, match=r"states 90.0%; with mean 0.5 0.5 0.5 and std 0.5 0.5 0.5 it would be 100.0%: give these$"
    ):
        examine(stated(mine, 0.9, **away), cache, "cpu", print)


def reordered(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.roll(1, 0) if name.startswith("head") else tensor for name, tensor in state.items()}


DOUBTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str]] = {
    "order": (reordered, "with its classes in another order it would be 100.0%: folders count in the order of"),
    "anything": (lambda state: {n: 0 * t for n, t in state.items()}, "no usual mean and std and no other order of cla"),
}


@pytest.mark.parametrize("kind", DOUBTS)
def test_what_may_be_wrong_is_told(kind: str, mine: Owner, cache: Path, tmp_path: Path) -> None:
    change, message = DOUBTS[kind]
    state = load_file(mine.release)
    save_file(change(state), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=rf"w.safetensors: .* right on the 8 test images of source, and .*; {message}"):
        examine(
            suite(mine, row={"release": str(tmp_path / "w.safetensors"), "source_accuracy": 0.95}), cache, "cpu", print
        )


def test_a_file_that_does_not_fit_stops_the_run_before_anything_is_stored(mine: Owner, tmp_path: Path) -> None:
    wrong = suite(mine, arch={"name": "cnn_bn"})
    session = Session(tmp_path / "run", Console(quiet=True))
    with pytest.raises(UserError, match=r"do not fit 'cnn_bn' with 3 classes.*they fit 'cnns_bn' with 3 classes"):
        session.run(Request(wrong), Workers())
    assert session.store.statuses() == {}


def test_an_undefended_file_that_is_gone_is_told(mine: Owner) -> None:
    with pytest.raises(UserError, match=r"undefended: '/gone.pt' is not there"):
        plan(suite(mine, row={"undefended": "/gone.pt"}))
    with pytest.raises(UserError, match=r"weights='/gone.pt' is not there"):
        plan(suite(mine, row={"release": "/gone.pt"}))


def test_a_model_that_stays_as_it_came_is_released_by_none(mine: Owner, cache: Path) -> None:
    kept = {"weights": str(mine.clean), "trained": False}
    cell = plan(suite(mine, defenses=[{"name": "none"}], pretrain=kept))[0]
    assert cell.pretrain.sha256 == file_digest(mine.clean)
    weights, facts = Bench(cell, torch.device("cpu"), cache).pretrained()
    assert torch.equal(weights["head.bias"], read_state(mine.clean)["head.bias"]) and facts.pretrain_flops is None


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no file": ({"row": {"release": ()}}, "name = 'file': give a defense's name, or `release`"),
    "a name": ({"row": {"name": "ntl"}}, "name = 'ntl': give a defense's name, or `release`"),
    "parameters": ({"row": {"params": {"weights": "x"}}}, "is a file, which has no `params` and no `grid`"),
    "no release": ({"defenses": [{"name": "none", "undefended": "x"}]}, "belong to a `release`; name its file"),
    "pretraining": ({"pretrain": {"steps": 3}}, "trains no model of its own; leave it out"),
    "nothing to release": (
        {"row": {"undefended": ()}},
        "'none' starts from undefended weights; name them: `undefended`",
    ),
    "two references": (
        {"defenses": [{"label": c, "release": c, "undefended": c} for c in "ab"]},
        "`undefended` differs between releases",
    ),
    "a domain": (
        {"defenses": [{"name": "public", "params": {"origin": "digits"}}, {"release": "a"}]},
        "origin: a suite with a `release` trains nothing",
    ),
    "a random start": (
        {"defenses": [{"name": "none"}], "pretrain": {"trained": False}},
        "trained = false leaves a ran",
    ),
    "nothing to start from": ({"defenses": [{"name": "none"}]}, "pretrain: missing; add it"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_in_a_suite_are_told(kind: str, mine: Owner) -> None:
    changes, message = MISTAKES[kind]
    with pytest.raises(ValueError, match=message):
        suite(mine, **changes)
