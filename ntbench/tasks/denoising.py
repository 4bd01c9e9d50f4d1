"""Denoising diffusion: the noise in an image, learnt by squared error at random time steps (Ho et al. 2020, eq. 14).

A model is shown noisy images with their time step as one more plane, [n, c + 1, s, s], and answers with the noise,
[n, c, s, s]; `channels` is c, where one holds the mean of an image's three. There are no labels: all are 0. The score
is ln(error) / ln(best), clipped to [0, 1]: 0 is predicting nothing, 1 the error `best`. The error is the mean over
images, a grid of ten time steps and pixels, with noise that is the same for every model. What an image adds to the
score is the first-order change of the score with its share of the error, so that the mean over images is the score and
their spread gives its standard error (the delta method).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor, nn

from ntbench.errors import UserError
from ntbench.tasks.carried import CARRIED, lacking
from ntbench.tasks.objective import SCORING_BATCH, Objective
from ntbench.tasks.pixels import floats
from ntbench.types import Arch

STEPS = 1000
GRID = 10
SAMPLING_STEPS = 25
UNMEASURED = 1e-3
"""An error that no small network reaches: with it scores are -ln(error) on a scale of their own."""

Error = Annotated[float, Field(gt=0, lt=1)]


class Denoising(Objective):
    """Predict the noise at time steps from the first of `times` to below the second.

    `reference` has by domain the error that scores 1, measured on other seeds than those it judges. `features` is a
    file of Inception's weights in whose features distances of made images are measured; without one they are measured
    in principal components of the real images.
    """

    later = frozenset({"features"})

    name: ClassVar[str] = "denoising"
    labelled: ClassVar[bool] = False
    example: ClassVar[Arch] = Arch(name="unet2d", params={"block_out_channels": (8, 16)})

    channels: Literal[1, 3] = 3
    times: tuple[int, int] = (0, STEPS)
    reference: dict[str, Error] = {}
    best: Error = UNMEASURED
    features: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        first, end = self.times
        if not 0 <= first < end <= STEPS:
            raise ValueError(f"times={list(self.times)} must rise, from 0 or more to {STEPS} or less")
        return self

    @property
    def features_file(self) -> str:
        """Return the weights of Inception in whose features made images are compared; none: in their components."""
        return self.features

    def at(self, domain: str) -> Denoising:
        """Return the objective with the error that scores 1 on a domain."""
        return self.model_copy(update={"best": self.reference.get(domain, self.best)})

    def unanchored(self, domains: Iterable[str]) -> list[str]:
        """Return the domains without a reference."""
        return [domain for domain in domains if domain not in self.reference]

    def anchored(self, plateaus: Mapping[str, float]) -> Denoising:
        """Return the objective whose reference is the error behind a score, to four digits."""
        found = {domain: float(f"{self.at(domain).best ** score:.4g}") for domain, score in plateaus.items()}
        return self.model_copy(update={"reference": self.reference | found})

    def converted(self, score: float, other: Objective) -> float:
        """Return what an error scores that another reference gives a score; 1 is the most."""
        assert isinstance(other, Denoising)
        return min(1.0, score * math.log(other.best) / math.log(self.best))

    def within(self, first: int, end: int) -> Denoising:
        """Return the objective at time steps first <= t < end alone."""
        return self.model_copy(update={"times": (first, end)})

    def seen(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of the declared channels, and labels that say nothing."""
        x = floats(x)
        shown = x if self.channels == x.shape[1] else x.mean(dim=1, keepdim=True)
        return shown.contiguous(memory_format=torch.channels_last), torch.zeros_like(y)

    def outputs(self, classes: int) -> int:
        """Return the channels of the noise."""
        return self.channels

    def shown(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an image with the plane of its time step."""
        return (shape[0] + 1, *shape[1:])

    def batch(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return noisy images at uniform time steps, and their noise."""
        t = torch.randint(*self.times, (len(x),), generator=generator, device=generator.device)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        return noisy(x, noise.to(x), t.to(x.device)), noise.to(x)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(outputs, targets)

    def each(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return what each image adds to the score, float64 [n] on the CPU.

        Raises ValueError where the model answers with no plain tensor like the noise, FloatingPointError where it is
        not finite.
        """
        with torch.no_grad():
            error = self.errors(model, x)
        scale, mean = math.log(self.best), float(error.mean())
        score = math.log(mean) / scale
        if not 0 < score < 1:
            return torch.full_like(error, min(max(score, 0.0), 1.0))
        return score + (error / mean - 1) / scale

    def errors(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the squared error of a model in eval mode on each image, a mean over pixels and ten time steps."""
        first, end = self.times
        generator, found = Generator().manual_seed(0), torch.zeros(len(x), dtype=torch.float64)
        for k in range(GRID):
            t = first + int((k + 0.5) * (end - first) / GRID)
            noise = torch.randn(x.shape, generator=generator).to(x)
            parts = zip(x.split(SCORING_BATCH), noise.split(SCORING_BATCH), strict=True)
            found += torch.cat([_error(model, images, part, t) for images, part in parts]) / GRID
        return found

    def natural(self, score: float) -> float | None:
        """Return the mean squared error behind a score; a clipped score tells its bound alone."""
        return float(self.best**score)

    def made(self, model: nn.Module, count: int, size: int, device: torch.device, noise: int = 0) -> Tensor | None:
        """Return images that 25 steps of DDIM (Song et al. 2021, eta = 0) make of noise that is the same for all."""
        start = torch.randn((count, self.channels, size, size), generator=Generator().manual_seed(noise))
        parts = start.to(device, memory_format=torch.channels_last).split(SCORING_BATCH)
        return torch.cat([_sampled(model, part) for part in parts])

    def refuses(self, method: Any) -> str:
        """Return why a defense or an attack has no meaning here, or an empty string where it has."""
        told = super().refuses(method)
        if told and method.name not in CARRIED:
            reason = lacking(method)
            return f"{told}: {reason}" if reason else told
        if getattr(method, "on_features", False) or getattr(method, "init", "") == "whole":
            return "a denoiser has no classifier behind features that could be trained or drawn anew by itself"
        if getattr(method, "augment", "none") != "none":
            return "views of images keep their classes, and a denoiser learns none; leave `augment` out"
        return ""


def noisy(x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return images [n, c, s, s] with noise at time steps t int64 [n], and t as one more plane."""
    plane = t.to(x)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([_scheduler().add_noise(x, noise, t), plane], dim=1)


def _error(model: nn.Module, x: Tensor, noise: Tensor, t: int) -> Tensor:
    answer = model(noisy(x, noise, torch.full((len(x),), t, device=x.device)))
    if type(answer) is not Tensor or answer.shape != noise.shape:
        shape = tuple(getattr(answer, "shape", ()))
        raise ValueError(f"the model answers {len(x)} noisy images with {type(answer).__name__} {shape}, not the noise")
    if not torch.isfinite(answer).all():
        raise FloatingPointError("the model's noise is not finite")
    return (answer.double() - noise.double()).square().mean(dim=(1, 2, 3)).cpu()


def _sampled(model: nn.Module, x: Tensor) -> Tensor:
    scheduler = _scheduler("DDIMScheduler")
    scheduler.set_timesteps(SAMPLING_STEPS)
    for t in scheduler.timesteps:
        plane = torch.full_like(x[:, :1], float(t))
        with torch.no_grad():
            x = scheduler.step(model(torch.cat([x, plane], dim=1)), int(t), x).prev_sample
    return x


@cache
def _scheduler(kind: str = "DDPMScheduler") -> Any:
    """Return the linear schedule of Ho et al. 2020, with what diffusers does by it."""
    try:
        import diffusers
    except ImportError:
        raise UserError("denoising needs diffusers; pip install 'ntbench[generation]'") from None
    return getattr(diffusers, kind)(num_train_timesteps=STEPS)
