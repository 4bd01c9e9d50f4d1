"""The control row of an attacker who starts from public weights and never touches the release.

No paper and no equations: a file of weights for the declared architecture is loaded, and the model that was trained on
source is thrown away. What a release adds beyond such weights is what it gives away.

Deviations: none. The file is safetensors, nothing is unpickled, and its tensors must have timm's names and shapes; the
classifier alone may differ or be missing, and is then the fresh model's. `sha256` stands in the recipe, so that another
file is another row.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Self

import torch
from pydantic import model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ntbench.method import Context, Defense, Field, head, register


@register
class Public(Defense):
    """Release public weights under a head for the source."""

    name = "public"
    needs_source = False

    weights: str = Field(min_length=1)
    """The path of a safetensors file."""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """Of the file, in hex digits; left out, it is filled in."""

    @model_validator(mode="after")
    def _same_file(self) -> Self:
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise ValueError(f"weights={self.weights!r} is not there; give the path of a safetensors file")
        stat = path.stat()
        found = _sha256(str(path), stat.st_mtime_ns, stat.st_size)
        if self.sha256 and self.sha256 != found:
            raise ValueError(f"weights={self.weights!r} has sha256={found}, not {self.sha256}; it is another file")
        object.__setattr__(self, "sha256", found)
        return self

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return a fresh model with the public weights; ValueError where a tensor does not fit."""
        fresh = ctx.fresh(head(model).out_features)
        load_public(fresh, _read(self.weights))
        return fresh


def load_public(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights by name; ValueError with the name and the shapes where one outside the classifier does not fit."""
    own = model.state_dict()
    classifier = {id(p) for p in head(model).parameters()}
    free = {name for name, p in model.named_parameters() if id(p) in classifier}
    for name in sorted((own.keys() | weights.keys()) - free):
        ours, theirs = (tuple(t[name].shape) if name in t else None for t in (own, weights))
        if ours == theirs:
            continue
        # Counters of batches decide nothing; not every file has them.
        if theirs is None and name.endswith("num_batches_tracked"):
            continue
        raise ValueError(
            f"public weights: {name!r} is {theirs or 'missing'} in the file and {ours or 'missing'} in the "
            "architecture; take weights of the same timm architecture"
        )
    fitting = {n: t for n, t in weights.items() if n in own and (n not in free or t.shape == own[n].shape)}
    with torch.no_grad():
        model.load_state_dict(fitting, strict=False)


def _read(path: str) -> dict[str, Tensor]:
    try:
        return load_file(Path(path).expanduser())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"weights={path!r} cannot be read as safetensors ({error})") from None


@lru_cache(maxsize=64)
def _sha256(path: str, changed: int, size: int) -> str:
    """Return the SHA-256 of a file; time of change and size only tell a file that was replaced."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
