"""The control row of an attacker who starts from public weights and never touches the release.

No paper and no equations: weights for the declared architecture come from a safetensors file (`weights`), or are those
of another source domain of ours (`origin`), and the model that was trained on the source is thrown away. What a release
adds beyond such weights is what it gives away.

Deviations: none. The tensors of a file must have timm's names and shapes; the classifier alone may differ or be
missing, and is then the fresh model's. `sha256` stands in the recipe, so that another file is another row.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import model_validator
from torch import nn

from ntbench.method import Context, Defense, Field, head, load_public, register


@register
class Public(Defense):
    """Release public weights under a head for the source."""

    name = "public"
    needs_source = False
    quick = {"origin": "digits"}
    expected_failures = {"check_settings_are_read": "a domain stands in for the file, which has a hash to compare"}

    weights: str = ""
    """The path of a safetensors file."""
    origin: str = ""
    """A domain that the public model was trained on; it is pretrained like the source."""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """Of the file, in hex digits; left out, it is filled in."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if bool(self.weights) == bool(self.origin):
            raise ValueError("name either `weights`, the path of a safetensors file, or `origin`, a domain")
        return self if self.origin else self._same_file()

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
        """Return the model that came, which was trained on `origin`, or a fresh one with the weights of the file."""
        return (
            model if self.origin else load_public(ctx.fresh(head(model).out_features), Path(self.weights).expanduser())
        )


@lru_cache(maxsize=64)
def _sha256(path: str, changed: int, size: int) -> str:
    """Return the SHA-256 of a file; time of change and size only tell a file that was replaced."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
