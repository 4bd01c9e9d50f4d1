"""Files of weights before a run: whether they fit what is declared, and do on the source what their owner states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ntbench.errors import UserError
from ntbench.learn.models import build, check_device, load_public
from ntbench.learn.preprocessing import HALF, with_usual
from ntbench.learn.scoring import predicted
from ntbench.learn.variants import check_fit
from ntbench.suite import Suite
from ntbench.tasks.data import Domain, load_domain
from ntbench.types import Arch, Channels, domain_label

FAR = 0.1
"""How far below what their owner states weights may lie on the source, in accuracy, before a run stops."""
USUAL: tuple[tuple[Channels, Channels], ...] = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    (HALF, HALF),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)
"""Mean and standard deviation that models are trained with, of ImageNet, of images in [-1, 1] and in [0, 1]."""


def prepared(suite: Suite) -> Suite:
    """Return the suite with the preprocessing of its architecture where its rows come as files."""
    return suite.model_copy(update={"arch": with_usual(suite.arch)}) if suite.releases else suite


def examine(suite: Suite, cache: Path, device: str, tell: Callable[[str], None]) -> None:
    """Tell what every file of a suite gets right on the source.

    Raises UserError where files and seeds do not match, where a file does not fit, with what would, and where it lies
    far below what its owner states, with what may be wrong.
    """
    check_device(device)
    for entry in suite.releases:
        _one_a_seed(entry.release, suite.seeds)
        _one_a_seed(entry.undefended, suite.seeds)
    stated = {f: entry.source_accuracy or 0.0 for entry in suite.releases for f in (*entry.undefended, *entry.release)}
    for task in {task.source: task for task in suite.tasks}.values():
        domain = load_domain(task.source, task.image_size, cache, task.train_samples, task.scored_samples)
        for file, least in stated.items():
            trial = Trial(Path(file).expanduser(), suite.arch, domain, device)
            tell(f"{trial.file.name}: {trial.said}")
            if trial.accuracy < least - FAR:
                raise UserError(
                    f"{trial.file.name}: {trial.said}, and its owner states {100 * least:.1f}%; {trial.doubts(least)}"
                )


def _one_a_seed(files: tuple[str, ...], seeds: tuple[int, ...]) -> None:
    if len(files) > 1 and max(seeds) >= len(files):
        raise UserError(
            f"seed {max(seeds)}: {len(files)} files of one defense are those of the seeds 0 to {len(files) - 1}; "
            "give a file for each seed, or one for all"
        )


class Trial:
    """A file on the test images of the source."""

    def __init__(self, file: Path, arch: Arch, source: Domain, device: str) -> None:
        """Take the file; raises UserError where it does not fit, with what would."""
        check_fit(file, arch, source.classes)
        self.file, self._arch, self._source, self._device = file, arch, source, device
        self._answers = self._predicted(arch)

    @property
    def accuracy(self) -> float:
        """Return the share of images that it gets right."""
        return self._right(self._answers)

    @property
    def said(self) -> str:
        """Return the accuracy in words."""
        name = domain_label(self._source.name)
        return f"{100 * self.accuracy:.1f}% right on the {len(self._answers)} test images of {name}"

    def doubts(self, stated: float) -> str:
        """Return what may be wrong: what would bring it at least half of the way to what is stated, or what else."""
        preprocessing = max(self._preprocessings())
        found = [said for right, said in (preprocessing, self._ordered()) if right > (self.accuracy + stated) / 2]
        return "; ".join(found) or (
            "no usual mean and std and no other order of classes does much better: are these its source images, at the "
            "size and cropped as it was trained?"
        )

    def _preprocessings(self) -> Iterator[tuple[float, str]]:
        for mean, std in USUAL:
            right = self._right(self._predicted(self._arch.model_copy(update={"mean": mean, "std": std})))
            yield right, f"with mean {_listed(mean)} and std {_listed(std)} it would be {100 * right:.1f}%: give these"

    def _ordered(self) -> tuple[float, str]:
        y, classes = self._source.test.y.numpy(), self._source.classes
        counts = np.zeros((classes, classes))
        np.add.at(counts, (y, self._answers.numpy()), 1)
        right = float(counts[linear_sum_assignment(-counts)].sum() / len(y))
        said = f"with its classes in another order it would be {100 * right:.1f}%: folders count in the order of their "
        return right, f"{said}names, rename them to the order of its training"

    def _predicted(self, arch: Arch) -> Tensor:
        model = load_public(build(arch, self._source.classes, seed=0), self.file, whole=True)
        return predicted(model.to(self._device), self._source.test.to(self._device))

    def _right(self, answers: Tensor) -> float:
        return float((answers == self._source.test.y).double().mean())


def _listed(values: Channels) -> str:
    return " ".join(f"{value:g}" for value in values)
