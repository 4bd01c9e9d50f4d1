"""NTL's loss for generation: a small error on source, a large one on the target, within a bound.

Paper: Wang et al., ICLR 2022, "Non-Transferable Learning", whose idea this carries over; the naive baseline of SOPHON's
generation (Deng et al., IEEE S&P 2024) is the same without a bound. On equal batches
L = |eps - eps_hat|^2_S - alpha * mean min(bound, |eps - eps_hat|^2_T), each image's error bounded by itself.

Deviations: no term on features, as a denoiser has no classifier behind them; no attacker is simulated. After the joint
steps `final_steps` follow on source alone, with a rate that falls to 0; what is released must be within `tolerance` of
the start on source validation data.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, Training, create_optimizer, fit, register

from ._domains import Batch, descend_both, pairs
from ._guard import TOLERANCE, SourceGuard


@register
class NTLGeneration(Defense):
    """Train with the bounded difference of the two errors."""

    name = "ntl_generation"
    paper = "https://arxiv.org/abs/2106.06916"
    objectives = ("denoising",)
    needs_target = True
    quick = {"steps": 6, "final_steps": 10, "batch_size": 16, "tolerance": 0.5}

    alpha: float = Field(default=0.3, gt=0)
    bound: float = Field(default=1.0, gt=0)
    steps: int = Field(default=300, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    clip: float = Field(default=5.0, gt=0)
    final_steps: int = Field(default=300, ge=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=64, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the model after the joint steps and the last steps on source."""
        assert ctx.source is not None and ctx.target is not None
        guard = SourceGuard(model, ctx, self.tolerance, "more `final_steps` or a lower `alpha`")
        optimizer = create_optimizer(model.parameters(), "adam", self.lr)
        batches = pairs(ctx.source, ctx.target, self.batch_size, ctx)

        def loss(source: Batch, target: Batch) -> Tensor:
            (x, noise), (xt, noise_t) = source, target
            lost = (model(xt) - noise_t).square().flatten(1).mean(dim=1)
            found: Tensor = F.mse_loss(model(x), noise) - self.alpha * lost.clamp_max(self.bound).mean()
            return found

        model.train()
        for _ in descend_both(batches, loss, optimizer, self.steps, self.clip):
            pass
        training = Training(lr=self.lr, schedule="linear", steps=self.final_steps, batch_size=self.batch_size)
        for _ in fit(model, ctx.source, training, ctx.generator("final")):
            pass
        guard.insist()
        return model
