"""Content and style as Gaussian codes: an encoder and a classifier for each, a decoder for both (H-NTL)."""

import torch
from torch import Tensor, nn

from ntbench.method import features, head

from ._generator import Decoder, initialise

Gaussian = tuple[Tensor, Tensor]


class Encoder(nn.Module):
    """A timm network whose features give the mean and the log variance of a Gaussian code."""

    def __init__(self, network: nn.Module, latent: int) -> None:
        """Put a linear layer behind a network; its own classifier is not used."""
        super().__init__()
        self.network = network
        self.posterior = nn.Linear(head(network).in_features, 2 * latent)

    def forward(self, x: Tensor) -> Gaussian:
        """Return the means and the log variances of the codes of images, [n, latent] each."""
        mean, log_variance = self.posterior(features(self.network, x)).chunk(2, dim=1)
        return mean, log_variance


class Factors(nn.Module):
    """Encoders of content and style, classifiers of their codes, and a decoder of both codes together."""

    def __init__(
        self, networks: tuple[nn.Module, nn.Module], latent: int, classes: tuple[int, int], size: int, width: int
    ) -> None:
        """Build for source and target class counts; where they are equal, both domains share a classifier."""
        super().__init__()
        self.content, self.style = (Encoder(network, latent) for network in networks)
        self.classify = nn.Linear(latent, classes[0])
        self.classify_target = self.classify if classes[0] == classes[1] else nn.Linear(latent, classes[1])
        self.tell_domain = nn.Linear(latent, 2)
        self.decoder = Decoder(2 * latent, size, width)

    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights of all but the encoders' networks from a CPU generator."""
        for part in (self.content.posterior, self.style.posterior, self.classify, self.classify_target):
            initialise(part, generator)
        initialise(self.tell_domain, generator)
        initialise(self.decoder, generator)


def sample(posterior: Gaussian, noise: torch.Generator) -> Tensor:
    """Return one draw from each Gaussian [n, d], with gradients to its mean and log variance."""
    mean, log_variance = posterior
    return mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=noise).to(mean.device)


def kl_to_standard(posterior: Gaussian) -> Tensor:
    """Return KL(N(mean, variance) || N(0, 1)) in nats, summed over the d dimensions: [n]."""
    mean, log_variance = posterior
    return (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
