"""Images as they are held, whole levels of a byte, and as models take them."""

import torch
from torch import Tensor


def floats(held: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [-1, 1], in the same memory format; floats as they are."""
    if held.dtype != torch.uint8:
        return held
    return held.float().div_(255).sub_(0.5).div_(0.5)
