"""What is stored of a recipe that has been carried out."""

from __future__ import annotations

from typing import Literal

from ntbench.types.recipes import Cell
from ntbench.types.trajectory import Trajectory
from ntbench.types.words import (
    Grown,
    Status,
    Track,
)


class Protection(Grown):
    """What pretraining and protecting cost and did; accuracies are on test data, seconds are wall time.

    `clean` and `kept` say of every source test image what it adds to the score before and after, as `pack_scores` does.
    Where models make images, `frechets` and `kids` are the Frechet and the kernel distance of such images from the
    source's, once for each seed of the noise that they are made of, and `drawn` some of them, as base64 of a PNG.
    `natural` is the error behind the source score, where the objective scores by its logarithm.
    """

    later = frozenset(f"{name}{when}" for name in ("frechets", "kids", "natural") for when in ("_before", "")) | {
        "drawn"
    }

    status: Status = "ok"
    error: str = ""
    needs: str = ""
    source_before: float | None = None
    source_after: float | None = None
    clean: str = ""
    kept: str = ""
    zero_shot: float | None = None
    sparsity: float | None = None
    pretrain_seconds: float | None = None
    pretrain_flops: int | None = None
    protect_seconds: float | None = None
    protect_flops: int | None = None
    protect_steps: int | None = None
    drawn: str = ""
    frechets_before: tuple[float, ...] = ()
    frechets: tuple[float, ...] = ()
    kids_before: tuple[float, ...] = ()
    kids: tuple[float, ...] = ()
    natural_before: float | None = None
    natural: float | None = None


class Provenance(Grown):
    """Where a result comes from: data hashes per split, and the versions that computed it.

    One of many `lanes` side by side gives the numbers of a cell alone but for the order of sums, not bit for bit.
    """

    later = frozenset({"lanes"})

    data: dict[str, str]
    versions: dict[str, str]
    device: str
    lanes: int = 1

    @property
    def place(self) -> str:
        """Return in words where and how a result was computed."""
        return self.device if self.lanes == 1 else f"{self.device} in lanes"


class Result(Grown):
    """A finished cell, whether it went well or not; a run that failed keeps what it reached before.

    `images` is how many target test images were scored and `originals` how many of them are independent: image i of
    the test set shows original i modulo `originals`. `source_images` is the number of source test images. `paid` is
    what the run cost in steps with everything that it tried before. `drawn` are images that the attacker's model makes
    at the largest budget, as base64 of a PNG, where models make any; `frechet` is the distance of such images from the
    target's training images.
    """

    later = frozenset({"drawn", "frechet"})

    schema_version: Literal[2] = 2
    cell: Cell
    status: Status
    error: str = ""
    choice: str = ""
    """What an attack that chooses for itself says that it chose."""
    track: Track = "target"
    images: int = 0
    originals: int = 0
    source_images: int = 0
    paid: int = 0
    protection: Protection | None = None
    trajectory: Trajectory = Trajectory()
    drawn: str = ""
    frechet: float | None = None
    provenance: Provenance | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
