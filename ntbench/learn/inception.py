"""Features of InceptionV3, in which papers on generation measure distances (Heusel et al. 2017)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntbench.errors import UserError
from ntbench.learn.checkpoints import read_state
from ntbench.learn.drawn import Array, Features

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity publishes: the weights of the original, in torch's form."""
BATCH = 50
GREY = 3
"""Channels of a network for colours; images of one channel are shown in all of them."""


def inception(file: str) -> Features:
    """Return the 2048 pooled features of InceptionV3 with the weights of a file; UserError as `check_inception`."""
    check_inception(file)
    network = _network(str(Path(file).expanduser().resolve()))

    def features(images: Tensor) -> Array:
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().expand(-1, GREY, -1, -1)
        with torch.no_grad():
            found = torch.cat([network(part)[0] for part in pixels.split(BATCH)])
        return found.double().numpy()

    return features


def check_inception(file: str) -> None:
    """Raise UserError where a file of weights is missing, or what reads it."""
    if not Path(file).expanduser().is_file():
        raise UserError(f"features = {file!r} is no file; download {WEIGHTS} from the releases of torch-fidelity")
    _extractor()


@cache
def _network(file: str) -> nn.Module:
    read_state(Path(file))  # the library unpickles objects, so that a file with any has to be refused before
    try:
        network: nn.Module = _extractor()("inception", ["2048"], feature_extractor_weights_path=file)
    except RuntimeError as error:
        told = str(error).splitlines()[0]
        raise UserError(f"features = {file!r} are no weights of InceptionV3 ({told}); download {WEIGHTS}") from None
    return network


def _extractor() -> Any:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("features of Inception need torch-fidelity; pip install 'ntbench[inception]'") from None
    return FeatureExtractorInceptionV3
