"""Whether a network takes images of a size, and what makes it."""

from __future__ import annotations

from functools import cache

import torch

from ntbench.errors import UserError
from ntbench.learn.models import build, features, head
from ntbench.learn.networks import hashed
from ntbench.types import Arch

TOLERANCE = 1e-3


def settled(arch: Arch, image_size: int) -> Arch:
    """Return an architecture as it is built for images of a size: with `img_size` where that is needed.

    The hash of code of one's own is part of it. Raises UserError where no such network takes these images, and where
    its head is not the last step.
    """
    return _settled(hashed(arch).model_dump_json(), image_size)


@cache
def _settled(text: str, image_size: int) -> Arch:
    arch = Arch.model_validate_json(text)
    refusal = _refusal(arch, image_size)
    if not refusal:
        return arch
    if "img_size" in arch.params:
        raise UserError(f"{refusal}; leave img_size out, or set it to {image_size}")
    sized = arch.model_copy(update={"params": {**arch.params, "img_size": image_size}})
    try:
        if not (still := _refusal(sized, image_size)):
            return sized
    except UserError:
        # It knows no img_size: the first reason is the one that helps.
        still = refusal
    raise UserError(f"{still}; take another image_size, or an architecture for small images")


def _refusal(arch: Arch, image_size: int) -> str:
    """Return why a network does not take images of a size, or an empty string."""
    # Of its own preprocessing nothing depends on the size.
    model = build(arch.model_copy(update={"mean": None, "std": None}), 2, seed=0).eval()
    layer, x = head(model), torch.zeros(2, 3, image_size, image_size)
    told = f"architecture {arch.name!r} takes no images of {image_size} pixels"
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if any(image_size % side for side in patch):
        return f"{told}: they are not made of patches of {' x '.join(map(str, patch))}"
    try:
        with torch.no_grad():
            given, known = layer(features(model, x)), getattr(model, "plain", model)(x)
    except Exception as error:
        return f"{told}: {' '.join(str(error).split())}"
    if given.shape != known.shape or not torch.allclose(given, known, atol=TOLERANCE, rtol=TOLERANCE):
        raise UserError(f"architecture {arch.name!r}: its linear layer is not its last step; let it end in one")
    return ""
