"""Generation end to end: cells of the smallest suite, whose scores are worked out again from the released weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from ntbench.engine.anchor import anchored
from ntbench.engine.frames import split_of, tensors_of
from ntbench.engine.likeness import of_attacker, of_release
from ntbench.engine.plan import plan
from ntbench.engine.runner import Runner
from ntbench.engine.store import Store
from ntbench.errors import UserError
from ntbench.learn.drawn import frechet, kid, picture, principal
from ntbench.learn.models import build, unpack
from ntbench.learn.scoring import made
from ntbench.suite import DefenseEntry, Limits, load_suite
from ntbench.tasks.data import Split, learnt, load_domain
from ntbench.tasks.objective import objective_of
from ntbench.types import CLASSIFICATION, Arch, Cell, Level, Result, Trajectory, pack_scores, unpack_scores


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str], Cell]:
    suite = load_suite("generation_smoke")
    suite = suite.model_copy(update={"defenses": (*suite.defenses, DefenseEntry(name="sophon"))})
    return {(cell.defense.name, cell.attack.name): cell for cell in plan(suite) if cell.samples == 12}


@pytest.fixture(scope="module")
def runner(generation: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Computes what the run of generation lacks."""
    folder = shutil.copytree(generation, tmp_path_factory.mktemp("generation") / "run")
    return Runner(Store(Path(folder)), torch.device("cpu"), Limits(), cache)


@pytest.fixture(scope="module")
def results(runner: Runner) -> dict[str, Result]:
    return {result.cell.key: result for result in runner.store.results()}


def test_scores_follow_from_the_released_weights(
    cells: dict[tuple[str, str], Cell], runner: Runner, results: dict[str, Result], cache: Path
) -> None:
    cell = cells["sophon_generation", "finetune"]
    result = results[cell.key]
    assert result.status == "ok" and result.protection is not None
    weights, facts = runner.protected(cell)
    domain = learnt(load_domain("digits", 8, cache, 300, 40), objective_of(cell.objective))
    model = unpack(weights, build(cell.arch, 1, seed=0)).eval()
    with torch.no_grad():
        error = objective_of(cell.objective).errors(model, domain.test.x)  # type: ignore[attr-defined]
    score = np.log(float(error.mean())) / np.log(0.03)
    assert facts.source_after == pytest.approx(score) and 0 < score < 1
    assert unpack_scores(facts.kept, 40).mean() == pytest.approx(score, abs=1e-3)
    images = made(model, domain.val.objective, 40, 8)
    assert images is not None
    again = [made(model, domain.val.objective, 40, 8, noise=noise) for noise in (1, 2)]
    features = principal(domain.train.x)
    truth, found = features(domain.train.x), [features(x) for x in (images, *again) if x is not None]
    assert facts.frechets == pytest.approx([frechet(x, truth) for x in found])
    assert facts.kids[0] == pytest.approx(kid(found[0], truth)) and len(facts.kids_before) == 3
    assert facts.natural == pytest.approx(float(error.mean())) and facts.natural_before is not None
    # The attacker's last model is not kept: its distance is that of other images from the target's.
    assert result.frechet is not None and 0 < result.frechet != facts.frechets[0]
    assert facts.drawn == picture(images[:24], 8) != result.drawn
    assert len(facts.frechets_before) == 3 and result.drawn
    run = result.trajectory
    assert run.step == cell.budget.ends and result.images == 40 and min(run.flops) > 0
    assert run.samples[-1] == run.step[-1] * 12
    assert unpack_scores(run.correct[-1], 40).mean() == pytest.approx(run.test[-1], abs=1e-3)


@pytest.mark.parametrize(("defense", "attack"), [("none", "redraw"), ("magnitude", "finetune")])
def test_methods_that_ask_nothing_of_a_task_run_unchanged(
    cells: dict[tuple[str, str], Cell], runner: Runner, few_images: None, defense: str, attack: str
) -> None:
    result = runner.run(cells[defense, attack])
    assert result.status == "ok", result.error
    # Eight steps of adam learn something.
    assert result.trajectory.test[-1] > result.trajectory.test[0]


def test_a_method_for_classes_is_inapplicable_with_the_reason(
    cells: dict[tuple[str, str], Cell], runner: Runner
) -> None:
    result = runner.run(cells["sophon", "finetune"])
    assert result.status == "inapplicable" and "not for denoising" in result.error


def test_an_objective_is_part_of_keys_and_its_absence_is_none(cells: dict[tuple[str, str], Cell]) -> None:
    cell = cells["none", "finetune"]
    plain = cell.model_copy(update={"objective": CLASSIFICATION})
    assert "objective" in cell.model_dump() and "objective" not in plain.model_dump()
    assert len({c.pretrain_key for c in (cell, plain)}) == len({c.key for c in (cell, plain)}) == 2
    assert Cell.model_validate(plain.model_dump()) == plain


def test_a_network_for_classes_is_refused_before_anything_runs() -> None:
    suite = load_suite("generation_smoke").model_copy(update={"arch": Arch(name="cnns_bn")})
    with pytest.raises(UserError, match=r"arch: .*network for classification"):
        plan(suite)


def test_a_split_keeps_its_objective_on_the_way_to_another_process(cells: dict[tuple[str, str], Cell]) -> None:
    domain = learnt(load_domain("digits", 8), objective_of(cells["none", "finetune"].objective))
    told = {"source": domain.val.objective.spec.model_dump(mode="json")}
    found = split_of(tensors_of({"source": domain.val}), "source", torch.device("cpu"), told)
    assert found is not None and found.objective == domain.val.objective and torch.equal(found.x, domain.val.x)


@pytest.mark.parametrize("frozen", [True, False])
def test_references_are_the_errors_of_everything_in_four_times_the_longest_horizon(cache: Path, frozen: bool) -> None:
    suite = load_suite("generation_smoke")
    bare = suite.model_copy(update={"objective": suite.objective.model_copy(update={"params": {"channels": 1}})})
    if not frozen:
        unknown = tuple(Level(samples=level.samples) for level in suite.tasks[0].levels)
        bare = bare.model_copy(update={"tasks": (suite.tasks[0].model_copy(update={"levels": unknown}),)})
    asked: list[tuple[int, int]] = []

    def compute(cells: list[Cell]) -> list[Result]:
        asked.extend((cell.samples, cell.budget.steps) for cell in cells)
        return [known(cell) for cell in cells]

    def known(cell: Cell) -> Result:
        ends, plateau = cell.budget.ends, {"digits": 0.5, "letters": 0.25}[cell.task.target]
        scores = tuple(plateau * (1 - 2.0 ** -(end / 8)) for end in ends)
        zeros = (0,) * len(ends)
        columns = {"samples": zeros, "flops": zeros, "seconds": zeros, "own": (None,) * len(ends)}
        run = Trajectory(step=ends, val=scores, test=scores, correct=("",) * len(ends), **columns)
        return Result(cell=cell, status="ok", trajectory=run)

    found = anchored(bare, compute, lambda line: None, cache)
    levels = found.tasks[0].levels
    whole = {steps for samples, steps in asked if samples == 300}
    assert whole == {round(4 * 8 * max(level.t90 for level in levels if level.t90))}
    assert {samples for samples, _ in asked} == ({300} if frozen else {12, 96, 300})
    reached = 1 - 2.0 ** -(whole.pop() / 8)
    best = {"digits": 1e-3 ** (0.5 * reached), "letters": 1e-3 ** (0.25 * reached)}
    assert found.objective.params["reference"] == pytest.approx(best, rel=1e-3)
    assert found.objective.params.keys() == {"channels", "reference"}
    # What was measured before the reference is told on its scale, on which the plateau of everything is 1.
    told = [level.plateau for level in (suite.tasks[0].levels if frozen else levels)]
    assert [level.plateau for level in levels] == told and (frozen or told == pytest.approx([1.0, 1.0], abs=0.01))
    assert anchored(suite, compute, lambda line: None, cache) == suite


def test_distances_do_not_depend_on_the_number_of_threads() -> None:
    def images(count: int, seed: int) -> torch.Tensor:
        return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))

    real, found = Split(images(1200, 9), torch.zeros(1200, dtype=torch.long)), []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            released, _ = of_release(lambda noise: images(300, noise), real)
            found.append((released, of_attacker(lambda noise: images(300, noise), real)))
    assert found[0] == found[1] and len(found[0][0]["frechets"]) == 3


def test_numbers_of_images_are_packed_in_two_bytes_and_told_from_bits() -> None:
    each = np.array([0.125, -0.5, 1.0])
    assert unpack_scores(pack_scores(each), 3).tolist() == each.tolist()
    assert unpack_scores(pack_scores(each > 0), 3).tolist() == [1.0, 0.0, 1.0]
