"""The control row of an attacker who starts from public weights and never touches the release.

No paper and no equations: weights for the declared architecture come from a file (`weights`), are those that timm
publishes (`weights = "timm"`) or those of another source domain of ours (`origin`), and the model that was trained on
the source is thrown away. What a release adds beyond such weights is what it gives away.

Deviations: none. The tensors of a file must have timm's names and shapes; the classifier alone may differ or be
missing, and is then a fresh one. `sha256` of a file stands in the recipe, so that another file is another row.
"""

from typing import Self

from pydantic import model_validator
from torch import nn

from ntbench.method import Context, head, register

from ._weights import FromFile


@register
class Public(FromFile):
    """Release public weights under a head for the source."""

    name = "public"
    quick = {"origin": "digits"}
    expected_failures = {"check_settings_are_read": "a domain stands in for the file, which has a hash to compare"}

    origin: str = ""
    """A domain that the public model was trained on; it is pretrained like the source."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if bool(self.weights) == bool(self.origin):
            raise ValueError("name either `weights`, the path of a file or `timm`, or `origin`, a domain")
        return self if self._comes else self.same_file()

    @property
    def _comes(self) -> bool:
        """Return whether the public model is what the engine hands over in place of one that was trained on source."""
        return bool(self.origin) or self.weights == "timm"

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model that came, of `origin` or of timm, or a fresh one with the weights of the file."""
        return model if self._comes else self.loaded(ctx.fresh(head(model).out_features), whole=False)
