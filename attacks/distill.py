"""Distillation: a fresh model learns from target labels and from what the protected model answers to target images.

Paper: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", with the protected model as a black box that
answers every image once: L = (1 - w) CE(z, y) + w T^2 KL(softmax(answer / T) || softmax(z / T)), in nats. Nothing of
its weights comes along, so what a defense does to the loss landscape does not either; at w = 0 this is `scratch`.

Deviations: where the target has other classes than the source, a second linear head on the features of the student
gives the z of the second term, and is thrown away in the end.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Access, Context, Field, Fit, Optimizer, Split, features, head, register

from ._questions import Questions
from ._tuning import Tuning


@register
class Distill(Tuning):
    """Train a student from scratch on labels and on the answers of the protected model."""

    name = "distill"
    paper = "https://arxiv.org/abs/1503.02531"
    access: ClassVar[Access] = Access(weights=False)

    optimizer: Optimizer = "adam"
    lr: float = Field(default=3e-3, gt=0)
    weight: float = Field(default=0.1, ge=0, le=1)
    temperature: float = Field(default=2.0, gt=0)

    def fit_of(self, model: nn.Module, ctx: Context) -> Fit:
        """Ask about every image and return the training, which hands over the student."""
        assert ctx.target is not None
        answers, labels = Questions(model)(ctx.target.x), ctx.target.y
        student, classes = ctx.fresh(ctx.target_classes), answers.shape[1]
        pupil = student if classes == ctx.target_classes else TwoHeaded(student, head(ctx.fresh(classes)))

        def loss(logits: Tensor, own: Tensor) -> Tensor:
            learnt = F.cross_entropy(logits[:, : ctx.target_classes], labels[own])
            copied = soft_divergence(answers[own], logits[:, -classes:], self.temperature)
            return (1 - self.weight) * learnt + self.weight * copied

        data = Split(ctx.target.x, torch.arange(len(labels), device=labels.device))
        return self.tuning(pupil, ctx, data, loss=loss, outcome=lambda: student)


class TwoHeaded(nn.Module):
    """A model with a second linear head; gives the logits of both side by side."""

    def __init__(self, model: nn.Module, second: nn.Linear) -> None:
        """Take a model and a classifier of its features."""
        super().__init__()
        self.model, self.second = model, second

    def get_classifier(self) -> nn.Linear:
        """Return the head of the model."""
        return head(self.model)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, classes of the model + classes of the second head]."""
        inputs = features(self.model, x)
        return torch.cat([head(self.model)(inputs), self.second(inputs)], 1)


def soft_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) in nats, the batch mean over logits [n, K]."""
    ours, theirs = (logits.div(temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
