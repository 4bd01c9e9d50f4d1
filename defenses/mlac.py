"""MLAC: meta-learned censoring of the target, against an adversary that learns how to adapt while it is censored.

Paper: Henderson et al. 2022, "Self-Destructing Models". The adversary has a head w for the target and a learning rate;
it adapts w, or w and the encoder, from theta_0 = theta to theta_K with Adam on target CE. The model minimises
CE_S - `strength` * mean_k C(theta_k), the adversary lowers the same C by gradient descent on its own w_0 and rate.
C is CE(z, y) of the logits z, no sample counting for more than `ceiling` * log K (`capped`), or, as in the public code,
min over W in [-1, 1]^{K x K} of CE(z W, y) (`recoded`): at most log K, and wrong labels that tell the right ones gain
nothing. The public experiments have K = 2; with ten classes `recoded` held less well against Adam and is no default.

Deviations: first order (public code: second order through all steps); then dC/d log(rate) = <dC/dtheta_k, theta_k -
theta_0>, and by the envelope theorem W counts as a constant, found by projected gradient descent (public code: a
differentiable convex solver). With probability `own_head`, where class counts agree, the copy starts from the model's
own head in place of w. C is taken on fresh batches, never before the first step; the adversary lowers C and not CE; the
norm of its gradient is not penalised; its rate has an Adam step of its own (`rate_lr`, in the logarithm) and is not
clamped. With the head's step of 1e-2 the rate stays within 2.8e-3 and 3.3e-3; digits to digits_m, one seed, 80 steps on
120 and on 600 samples: Adam 1e-3 .20 .24 becomes .16 .19, momentum .01 .46 .51 becomes .27 .24. Each loop ends with
`source_steps` on CE_S, and `repair_steps` more where source accuracy on validation data is more than `tolerance` below
the start; the last state within it is released. Buffers stay out of the simulation.
"""

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, create_optimizer, descend, head, register

from ._domains import keep_source
from ._guard import TOLERANCE, SourceGuard
from ._losses import recoded_cross_entropy
from ._meta import Batches, attack_steps, attackers_copy, linear, weighted_sum


@register
class MLAC(Defense):
    """Censor the target for an adversary that learns its head and its rate, and train on source."""

    name = "mlac"
    version = 2
    paper = "https://arxiv.org/abs/2211.14946"
    needs_target = True
    needs_target_labels = True
    quick = {"loops": 4, "inner_steps": 4}

    censor: Literal["capped", "recoded"] = "capped"
    adapt: Literal["head", "all"] = "all"
    ceiling: float = Field(default=1.0, gt=0)
    loops: int = Field(default=40, ge=1)
    inner_steps: int = Field(default=16, ge=1)
    own_head: float = Field(default=0.5, ge=0, le=1)
    inner_lr: float = Field(default=3e-3, gt=0)
    adversary_lr: float = Field(default=1e-2, gt=0)
    rate_lr: float = Field(default=0.1, gt=0)
    strength: float = Field(default=4.0, ge=0)
    lr: float = Field(default=1e-2, gt=0)
    clip: float = Field(default=5.0, gt=0)
    source_steps: int = Field(default=12, ge=0)
    source_lr: float = Field(default=1e-3, gt=0)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=TOLERANCE, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1)

    def protect(self, model: nn.Module, ctx: Context) -> nn.Module:
        """Return the last model whose source accuracy on validation data is within tolerance of the start."""
        assert ctx.source is not None and ctx.target is not None
        source = ctx.source.batches(self.batch_size, ctx.generator("source"))
        target = ctx.target.batches(self.batch_size, ctx.generator("target"))
        chance = ctx.generator("heads")
        first, _, _ = attackers_copy(model, ctx.target_classes, 1.0, chance)
        classifier = copy.deepcopy(head(first))
        log_rate = nn.Parameter(torch.tensor(math.log(self.inner_lr), device=ctx.device))
        rate: dict[str, Any] = {"params": [log_rate], "lr": self.rate_lr}
        learn = create_optimizer([{"params": [*classifier.parameters()]}, rate], "adam", self.adversary_lr)
        censor = create_optimizer(model.parameters(), "adam", self.lr)
        train = create_optimizer(model.parameters(), "adam", self.source_lr)
        guard, steps = SourceGuard(model, ctx, self.tolerance), (self.source_steps, self.repair_steps)
        model.train()
        for loop in range(1, self.loops + 1):
            gained, lost = self._play(model, classifier, log_rate, target, chance)
            descend(learn, gained, loop, self.clip)
            x, y = next(source)
            descend(censor, F.cross_entropy(model(x), y) - self.strength * lost, loop, self.clip)
            keep_source(guard, train, lambda x, y: F.cross_entropy(model(x), y), source, *steps)
        guard.restore()
        return model

    def _play(
        self, model: nn.Module, classifier: nn.Linear, log_rate: Tensor, target: Batches, chance: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return C along one adaptation, linear in the parameters of the adversary and, apart, in the model's."""
        clone, shared, own = attackers_copy(model, classifier.out_features, 1 - self.own_head, chance)
        new = [p for p in head(clone).parameters() if all(p is not known for known in shared)]
        learned = list(classifier.parameters()) if new else []
        if new:
            head(clone).load_state_dict(classifier.state_dict())
        adapted = (clone if self.adapt == "all" else head(clone)).parameters()
        attacker = create_optimizer(adapted, "adam", log_rate.exp().item())
        parameters = [*shared, *new]
        start = [p.detach().clone() for p in parameters]
        met = attack_steps(clone, parameters, attacker, target, target, self.inner_steps, self._censored)
        # How far Adam has gone is proportional to the rate, where the gradients are constants.
        with_rate = ([*g, (linear(parameters, g) - linear(start, g)).detach()] for g in met)
        weights = [1 / self.inner_steps] * self.inner_steps
        total = weighted_sum([*parameters, log_rate], with_rate, weights)
        count = len(own)
        return linear([*learned, log_rate], total[count:]), linear(own, total[:count])

    def _censored(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.censor == "recoded":
            return recoded_cross_entropy(logits, labels)
        ceiling = self.ceiling * math.log(logits.shape[1])
        return F.cross_entropy(logits, labels, reduction="none").clamp_max(ceiling).mean()
