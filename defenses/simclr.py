"""SimCLR as a control row: a fresh encoder that is pretrained on source images without labels, with a linear head.

Paper: Chen et al., ICML 2020, "A Simple Framework for Contrastive Learning of Visual Representations". For the two
views i and j of one image among the 2n views of a batch, with z = projector(f(x)) and s = cosine / temperature,
l(i, j) = -log(exp(s(z_i, z_j)) / sum_{k != i} exp(s(z_i, z_k))) (equation 1); the loss is the mean over all views. The
projector is thrown away. This is no protection: it is what `ntp_ssl` starts from and has to be compared with.

Deviations: images are small and grey as a rule, so that views differ by crop, brightness, contrast, blur and noise, and
not by colour or (by default) by a flip; batches are small; Adam at a cosine rate without warm-up in place of LARS. The
linear head is fitted on source labels while the encoder stands still, and is released with it, since the classifier
has to serve the source. The pretrained model that is handed in is thrown away, and with it its source accuracy: a
linear head on this encoder reaches less, so no source guard holds it to that.
"""

from torch import nn

from ntbench.method import Context, register

from ._simclr import Contrastive


@register
class SimCLR(Contrastive):
    """Pretrain without labels, then fit a linear head."""

    name = "simclr"
    paper = "https://arxiv.org/abs/2002.05709"
    quick = {"pretrain_steps": 60}

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return a contrastive encoder with a head for the source."""
        self._pretrained(model, ctx)
        self._probe(model, ctx)
        return model
