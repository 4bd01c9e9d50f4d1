"""A release that was made elsewhere: its weights come from a file, and nobody here protects anything.

No paper and no equations. Suites have such a row with `release`, the path of the file, or of several files of one
defense, one a seed; `undefended` names the weights that were released without protection, which the model that comes
then has. What is lost on the source is measured against those.

Deviations: none. Names and shapes must be timm's for the declared architecture, the classifier's included. Without a
file the model is released as it came, which no suite accepts. What it cost to make the weights is not known.
"""

from typing import Self

from pydantic import model_validator
from torch import nn

from ntbench.method import Context, head, register

from ._weights import FromFile


@register
class File(FromFile):
    """Release the weights of a file."""

    name = "file"
    expected_failures = {"check_settings_are_read": "without a file, there is no hash to compare"}

    @classmethod
    def needs(cls) -> str:
        """Return that nobody here knows what the weights were made of."""
        return "not known"

    @model_validator(mode="after")
    def _found(self) -> Self:
        return self.same_file() if self.weights else self

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return a model with the weights of the file, and the model as it came where there is no file."""
        return self.loaded(ctx.fresh(head(model).out_features), whole=True) if self.weights else model
