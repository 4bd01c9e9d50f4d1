"""CoWA: confidence-weighted self-training; a Gaussian mixture over features labels the target and says how surely.

Paper: Lee et al., ICML 2022, "Confidence Score for Source-Free Unsupervised Domain Adaptation". A mixture
with one Gaussian a class is fitted to L2-normalised features: means from the predictions and one covariance shape for
all samples first, then one step of expectation and maximisation. JMDS = LPG * MPPL, where LPG is the gap of the two
best log-posteriors over the largest gap and MPPL is the model's probability of the mixture's label. Loss: JMDS-weighted
cross-entropy on weight mixup, where images, hard labels and weights are mixed alike with Beta(alpha, alpha).

Deviations: the mixture is computed in double precision, in which `ridge` I makes singular covariances of unit-length
features invertible, so the public code's hundredfold ridge after a failure is not needed; a class without any sample
keeps a tiny share instead of 0 / 0; no crops and flips, no warm-up, and 5 refreshes instead of 15. NTLBench labels
once, which is `refreshes=1`.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, register

from ._adaptation import create_sgd, encode_all
from ._stepwise import Step, Stepwise, descent, power_decay

# The least share of a class in a sample: a class that nobody belongs to keeps a mean and a prior.
TINY = 1e-8


@register
class CoWA(Stepwise):
    """Train on the labels of a Gaussian mixture, weighted by joint confidence, with mixup."""

    name = "cowa"
    paper = "https://proceedings.mlr.press/v162/lee22c.html"
    access = Access(target="unlabelled")
    quick = {"refreshes": 2}

    lr: float = Field(default=1e-2, gt=0)
    backbone: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    alpha: float = Field(default=0.2, gt=0)
    ridge: float = Field(default=1e-5, gt=0)
    refreshes: int = Field(default=5, ge=1)

    def steps_of(self, model: nn.Module, ctx: Context) -> Step:
        """Return the step; labels and weights are made anew `refreshes` times on the way."""
        assert ctx.target is not None
        images, every = ctx.target.x, max(1, ctx.steps // self.refreshes)
        known: list[Tensor] = []
        shuffles = ctx.generator("mixup")
        draws = np.random.default_rng(shuffles.initial_seed())

        def loss(taken: int, x: Tensor, own: Tensor) -> Tensor:
            if taken % every == 0:
                known[:] = self._confidence(model, images)
            share = torch.from_numpy(draws.beta(self.alpha, self.alpha, len(x))).to(x)
            partner = torch.randperm(len(x), generator=shuffles).to(x.device)
            x, y, w = (mix(part, share, partner) for part in (x, *(part[own] for part in known)))
            return F.cross_entropy(model(x), y, reduction="none") @ w / len(w)

        optimizer = create_sgd(model, self.lr, self.backbone, self.weight_decay)
        model.train()
        return descent(optimizer, loss, power_decay(optimizer, ctx.steps))

    def _confidence(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixture's hard labels [n, K] and the JMDS weights [n] of all images."""
        inputs, logits = encode_all(model, x)
        probabilities = logits.softmax(1)
        posteriors = fit_mixture(F.normalize(inputs), probabilities, self.ridge)
        labels = F.one_hot(posteriors.argmax(1), probabilities.shape[1]).to(inputs)
        return labels, joint_confidence(posteriors, probabilities)


def mix(values: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """Return share * values + (1 - share) * values[partner] for values [b, ...] and shares [b]."""
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[partner]


def fit_mixture(inputs: Tensor, probabilities: Tensor, ridge: float) -> Tensor:
    """Return log p(k | x) of a mixture for features [n, d] that begins at predictions [n, K], after one step of EM."""
    equal = torch.ones_like(probabilities)
    start = log_posteriors(inputs, probabilities, equal, ridge).exp()
    return log_posteriors(inputs, start, start, ridge)


@torch.no_grad()
def log_posteriors(inputs: Tensor, shares: Tensor, spread: Tensor, ridge: float) -> Tensor:
    """Return log p(k | x), [n, K], with priors and means from `shares` [n, K] and covariances weighted by `spread`.

    Every covariance gets `ridge` on its diagonal.
    """
    inputs, joint = inputs.double(), []
    loading = ridge * torch.eye(inputs.shape[1]).to(inputs)
    for share, weight in zip(shares.T.to(inputs).clamp_min(TINY), spread.T.to(inputs).clamp_min(TINY), strict=True):
        centred = inputs - share @ inputs / share.sum()
        covariance = centred.T @ (centred * weight[:, None]) / weight.sum()
        root = torch.linalg.cholesky(covariance + loading)
        distances = torch.linalg.solve_triangular(root, centred.T, upper=False).square().sum(0)
        joint.append(share.sum().log() - root.diagonal().log().sum() - distances / 2)
    return torch.stack(joint, 1).log_softmax(1)


def joint_confidence(posteriors: Tensor, probabilities: Tensor) -> Tensor:
    """Return JMDS [n] in [0, 1], from log p(k | x) of the mixture and p(k | x) of the model, both [n, K].

    LPG is the gap of the two best log-posteriors over the largest gap of all; MPPL is p(label of the mixture).
    """
    best, labels = posteriors.topk(2)
    gap = best[:, 0] - best[:, 1]
    certainty = (gap / gap.max().clamp_min(TINY)).to(probabilities)
    return certainty * probabilities.gather(1, labels[:, :1]).squeeze(1)
