"""TAR: meta-learned weights on which a fine-tuned copy, whoever tunes it and how, keeps predicting at random.

Paper: Tamirisa et al. 2024, "Tamper-Resistant Safeguards for Open-Weight LLMs". Each outer loop draws an attacker and
lets it fine-tune a copy, theta_0 = theta, ..., theta_K. One Adam step follows along the gradient of the retain loss
CE_S + `retain` * |f(x) - f_0(x)|_2 (features f against those of the original model, source data) plus `scale` times
sum_i w_i grad L(theta_i), i = `every`, 2 `every`, ..., first order: the tamper resistance. L is the negative entropy of
predictions on target data held out from the attackers, and w_i ~ exp(`growth` * (i - K) / K) favours late steps.

Deviations: TAR was made for language models; here an attacker is an image classifier's fine-tuning on target labels,
and its optimizer, its rate (log-uniform) and its number of steps are drawn (paper: AdamW, one of three rates, 64 steps);
mixtures of attack data, benign data first, and three attackers a loop are left out. The weights sum to 1 (public code:
0.0625 = 4 / 64 for `growth` / K and no division). The copy's head is drawn anew with probability `reinit`, and always
where class counts differ. L is averaged over fresh held-out batches (public code: the same one along an attack), the
distance is that of the last features and not of every layer, the gradient is clipped, and `retain_steps` steps of the
retain loss alone follow each loop. Buffers stay out of the simulation; a loop that ends more than `tolerance` below the
start on source validation data is followed by `repair_steps` retain steps, and the last state within it is released.
"""

import copy
import math
from typing import Annotated

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Context, Defense, Field, Optimizer, Split, create_optimizer, descend, features, head, register

from ._guard import SourceGuard
from ._losses import negative_entropy
from ._meta import Batches, attack_steps, attackers_copy, linear, weighted_sum

Rate = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def late_weights(steps: int, every: int, growth: float) -> list[float]:
    """Return exp(growth * (i - K) / K) of every m-th of K steps, i = m, 2 m, ..., scaled to sum 1."""
    weights = [math.exp(growth * (i - steps) / steps) for i in range(every, steps + 1, every)]
    return [w / sum(weights) for w in weights]


@register
class TAR(Defense):
    """Train on source while simulated attackers of every kind find nothing but entropy."""

    name = "tar"
    paper = "https://arxiv.org/abs/2408.00761"
    needs_target = True
    needs_target_labels = True
    quick = {"loops": 4, "inner_steps": (4, 6), "every": 2}

    loops: int = Field(default=60, ge=1)
    attackers: tuple[tuple[Optimizer, Rate, Rate], ...] = Field(
        default=(("momentum", 3e-3, 5e-2), ("adam", 3e-4, 5e-3)), min_length=1
    )
    inner_steps: tuple[Count, Count] = (16, 48)
    every: int = Field(default=4, ge=1)
    growth: float = Field(default=4.0, ge=0)
    scale: float = Field(default=4.0, ge=0)
    held_out: float = Field(default=0.25, gt=0, lt=1)
    reinit: float = Field(default=0.5, ge=0, le=1)
    retain: float = Field(default=1.0, ge=0)
    lr: float = Field(default=5e-3, gt=0)
    clip: float = Field(default=5.0, gt=0)
    retain_steps: int = Field(default=12, ge=0)
    retain_lr: float = Field(default=1e-3, gt=0)
    repair_steps: int = Field(default=24, ge=0)
    tolerance: float = Field(default=0.02, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1)

