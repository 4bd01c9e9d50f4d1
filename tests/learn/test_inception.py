"""Features of Inception against torch-fidelity's own measures, with weights that nobody trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from ntbench.engine import likeness
from ntbench.engine.plan import examined
from ntbench.errors import UserError
from ntbench.learn.drawn import Array, frechet, kid
from ntbench.learn.inception import inception
from ntbench.suite import load_suite
from ntbench.tasks.data import Split
from ntbench.tasks.denoising import Denoising

FEW = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Holds random weights in the file's form: the library builds the network from a file alone."""
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save({}, file)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = FeatureExtractorInceptionV3("random", ["2048"], str(file))
        for part in network.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(part.weight)  # else all images look alike after so many layers
        torch.save(network.state_dict(), file)
    return str(file)


def images(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_features_and_distances_are_those_of_the_library(weights: str) -> None:
    network = FeatureExtractorInceptionV3("theirs", ["2048"], weights)
    both = [inception(weights)(images(6, seed)) for seed in (0, 1)]
    pixels = ((images(6, 0) + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    assert both[0].shape == (6, 2048) and torch.from_numpy(both[0]).float().equal(network(pixels)[0])
    # The library's matrix root of all 2048 takes many seconds.
    found, truth = (x[:, :FEW] for x in both)
    one, other = (fid_features_to_statistics(torch.from_numpy(x)) for x in (found, truth))
    theirs = fid_statistics_to_metric(one, other, verbose=False)["frechet_inception_distance"]
    assert frechet(found, truth) > 0.01 and frechet(found, truth) == pytest.approx(theirs, rel=1e-3)
    all_of_both = {"kid_subsets": 1, "kid_subset_size": 6, "verbose": False}
    measured = kid_features_to_metric(torch.from_numpy(found), torch.from_numpy(truth), **all_of_both)
    assert kid(found, truth) == pytest.approx(measured["kernel_inception_distance_mean"], rel=1e-3)


def test_an_objective_that_names_a_file_measures_in_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def pixels(x: torch.Tensor) -> Array:
        return x.flatten(1).double().numpy()[:, :FEW]

    monkeypatch.setattr(likeness, "inception", {"weights.pth": pixels}.__getitem__)
    objective = Denoising(channels=1, features="weights.pth")
    real = Split(images(40, 9), torch.zeros(40, dtype=torch.long), objective=objective)
    found, picture = likeness.of_release(lambda noise: images(24, noise), real)
    made = [pixels(images(24, noise)) for noise in range(3)]
    assert found["frechets"] == tuple(frechet(x, pixels(real.x)) for x in made)
    assert found["kids"] == tuple(kid(x, pixels(real.x)) for x in made)
    assert likeness.of_attacker(lambda noise: images(24, noise), real) == (found["frechets"][0], picture)


def test_an_objective_without_a_file_stands_in_recipes_as_before(weights: str) -> None:
    assert "features" not in Denoising().spec.params
    assert Denoising(features=weights).spec.params["features"] == weights


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no file"),
        ({"conv.weight": torch.zeros(1)}, "no weights of InceptionV3"),
        ({"a": object}, "no object is ever unpickled"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: object, told: str) -> None:
    file = tmp_path / "weights.pth"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match=told):
        inception(str(file))(images(1, 0))


def test_a_missing_file_is_told_before_anything_runs() -> None:
    suite = load_suite("generation_smoke")
    params = {**suite.objective.params, "features": "gone.pth"}
    suite = suite.model_copy(update={"objective": suite.objective.model_copy(update={"params": params})})
    with pytest.raises(UserError, match=r"objective: features = 'gone.pth' is no file"):
        examined(suite)
