"""Images near a domain, drawn by a class-conditional generator that leaves it step by step (NTL, source-only)."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.method import Split, create_optimizer, descend

from ._generator import DIRECTIONS, Discriminator, Generator, blur, freeze_channels
from ._mmd import mmd

Batches = Iterator[tuple[Tensor, Tensor]]
BETAS = (0.5, 0.999)
# The discriminator's realness rests while it is ahead, that is below and above these least-squares losses.
AHEAD, BEHIND = 0.2, 0.3


@dataclass(frozen=True)
class Pair:
    """A generator and a discriminator, with the source of their noise."""

    made: Generator
    judge: Discriminator
    noise: torch.Generator


def learn(pair: Pair, batches: Batches, steps: int, lr: float) -> None:
    """Train both nets on a domain: least squares on realness, cross-entropy on classes."""
    made, judge = (create_optimizer(net.parameters(), "adam", lr, betas=BETAS) for net in (pair.made, pair.judge))
    for step in range(1, steps + 1):
        x, y = next(batches)
        drawn = pair.made(y, pair.noise)
        pair.judge.requires_grad_(False)
        _, realness, logits = pair.judge(drawn)
        fooled = (realness - 1).square().mean()
        descend(made, fooled + F.cross_entropy(logits, y), step)
        pair.judge.requires_grad_(True)
        _, real, logits = pair.judge(x)
        _, fake, _ = pair.judge(drawn.detach())
        told = ((real - 1).square().mean() + fake.square().mean()) / 2
        gate = told.item() > AHEAD or fooled.item() < BEHIND
        descend(judge, gate * told + F.cross_entropy(logits, y), step)


def leave(pair: Pair, batches: Batches, direction: int, bound: float, steps: int, lr: float) -> Pair:
    """Return a copy whose generator has gone `bound` further from the domain in MMD, along one direction.

    Loss: CE(class of drawn, y) / 2 - min(bound, MMD(drawn, real) - MMD at the start) on the discriminator's features,
    since the MMD of two batches of one domain is not 0 but of the size of the public bounds. The discriminator and the
    first direction / 4 of the generator's hidden channels stand still.
    """
    moved = Pair(copy.deepcopy(pair.made), pair.judge, pair.noise)
    start = distance(pair, batches)
    freeze_channels(moved.made.decoder, direction)
    optimizer = create_optimizer(moved.made.parameters(), "adam", lr, betas=BETAS)
    for step in range(1, steps + 1):
        x, y = next(batches)
        with torch.no_grad():
            real, _, _ = pair.judge(x)
        drawn, _, logits = pair.judge(moved.made(y, pair.noise))
        descend(optimizer, F.cross_entropy(logits, y) / 2 - (mmd(drawn, real) - start).clamp_max(bound), step)
    return moved


@torch.no_grad()
def distance(pair: Pair, batches: Batches, draws: int = 4) -> float:
    """Return the mean MMD, on the discriminator's features, of some batches drawn and real."""
    found = []
    for x, y in itertools.islice(batches, draws):
        found.append(mmd(pair.judge(pair.made(y, pair.noise))[0], pair.judge(x)[0]))
    return float(torch.stack(found).mean())


@torch.no_grad()
def draw(made: nn.Module, labels: Tensor, noise: torch.Generator) -> Split:
    """Return a blurred image for every label [n], together with it."""
    return Split(blur(made(labels, noise)).contiguous(memory_format=torch.channels_last), labels)


def neighbours(pair: Pair, batches: Batches, rounds: int, reach: float, steps: int, lr: float, count: int) -> Split:
    """Return `count` samples for each of the four directions of every round; round r goes reach * (r + 1) further."""
    pair.judge.requires_grad_(False)
    drawn = []
    for bound in (reach * (r + 1) for r in range(rounds)):
        for direction in range(DIRECTIONS):
            moved = leave(pair, batches, direction, bound, steps, lr)
            labels = torch.randint(pair.made.classes, (count,), generator=pair.noise)
            drawn.append(draw(moved.made, labels.to(next(moved.made.parameters()).device), pair.noise))
    return Split(torch.cat([d.x for d in drawn]), torch.cat([d.y for d in drawn]))
