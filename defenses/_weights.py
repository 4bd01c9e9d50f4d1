"""A release that comes from a file: its hash stands in the recipe, so that another file is another row."""

from pathlib import Path
from typing import Self

from torch import nn

from ntbench.method import Defense, Field, file_digest, load_public


class FromFile(Defense):
    """Weights of the declared architecture in a file: safetensors, or tensors that torch.save wrote."""

    needs_source = False

    weights: str = ""
    """The path of the file."""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """Of the file, in hex digits; left out, it is filled in."""

    def same_file(self) -> Self:
        """Fill in the hash; raises ValueError where the file is not there, or is not the one that the hash says."""
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise ValueError(f"weights={self.weights!r} is not there; give the path of a file of weights")
        found = file_digest(path)
        if self.sha256 and self.sha256 != found:
            raise ValueError(f"weights={self.weights!r} has sha256={found}, not {self.sha256}; it is another file")
        object.__setattr__(self, "sha256", found)
        return self

    def loaded(self, model: nn.Module, whole: bool) -> nn.Module:
        """Return the model with the weights of the file, its head among them where the `whole` is asked for."""
        return load_public(model, Path(self.weights).expanduser(), whole)
