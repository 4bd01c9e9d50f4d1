"""Fine-tuning on source data alone: direct-all, direct-FC, init-FC-all and init-FC-FC with labels of the source.

Paper: Hong et al. 2025, NTLBench, section 4: what a defense hides may come back while the source task is trained on,
with a share of the source data and without a single target image. All settings are those of `finetune`.

Deviations: NTLBench trains with SGD at 1e-4 for 10 thousand steps and picks the best epoch with labelled target data;
here nothing is picked, and the share is what an attacker owns. As there, batch norm stays in train mode where the head
alone trains. A head drawn anew is torch's, not N(0, 0.01^2).
"""

from dataclasses import replace
from typing import ClassVar

from torch import nn

from ntbench.method import Access, Context, Fit, head, register

from ._adaptation import check_label_space
from .finetune import FineTune


@register
class SourceFineTune(FineTune):
    """Train on labelled source samples."""

    name = "source_finetune"
    paper = "https://arxiv.org/abs/2502.13593"
    objectives = ("classification", "denoising")
    access: ClassVar[Access] = Access(source=True, target=None)

    @property
    def on_features(self) -> bool:
        """Return that the attack works on images, since those are what it has of the source."""
        return False

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Return the training of the model; ValueError where class counts differ."""
        check_label_space(model, ctx)
        if self.scope == "head":
            model.requires_grad_(False)
            head(model).requires_grad_(True)
        return super().fit_of(model, replace(ctx, target=ctx.source))
