"""The control row that asks what a defense's own training on source is worth: it goes on, and nothing else is done.

No paper: `steps` more steps of Adam on the source, at a rate that falls to 0, from a new state of the optimizer. A
defense whose release fits its source better than the model that it was made from is to be compared with this row at as
many steps, since a longer trained source alone changes what an attacker gains.

Deviations: none.
"""

from torch import nn

from ntbench.method import Context, Defense, Field, Training, fit, register


@register
class Continued(Defense):
    """Go on training on source."""

    name = "continued"
    objectives = ("classification", "denoising")
    quick = {"steps": 20, "batch_size": 16}

    lr: float = Field(default=1e-3, gt=0)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=64, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model after the last step."""
        assert ctx.source is not None
        training = Training(lr=self.lr, schedule="linear", steps=self.steps, batch_size=self.batch_size)
        for _ in fit(model, ctx.source, training, ctx.generator("source")):
            pass
        return model
