"""Two small networks of ours, which timm knows by their names once this module is imported."""

from __future__ import annotations

from collections.abc import Mapping

from timm.models import register_model, register_notrace_function
from torch import Tensor, nn
from torch.nn import functional as F

from ntbench.errors import UserError


class SmallCNN(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and max-pooling, and a linear head, with timm's interface.

    Takes [n, 3, s, s] with s of at least 8 pixels; the head sees a 2x2 grid of averages, whatever s is.
    """

    def __init__(self, widths: tuple[int, int, int], num_classes: int = 10, in_chans: int = 3) -> None:
        """Build the blocks with the given channel widths."""
        super().__init__()
        self.num_features, self.num_classes = 4 * widths[-1], num_classes
        channels = [in_chans, *widths]
        blocks = [_block(a, b) for a, b in zip(channels, widths, strict=False)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(self.num_features, num_classes)

    def get_classifier(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the head by a fresh one."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature maps, [n, c, s // 8, s // 8]."""
        return self.blocks(x)  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the feature maps and, unless `pre_logits`, classify them."""
        x = pooled(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [n, classes]."""
        return self.forward_head(self.forward_features(x))


# It asks for a shape, and timm patches no names that begin with an underscore.
@register_notrace_function  # type: ignore[untyped-decorator]
def pooled(x: Tensor) -> Tensor:
    """Return feature maps as averages over a 2x2 grid, [n, 4 c]."""
    # Of 16 pixels 2x2 are left already; asking for them again would cost a tenth of a training step.
    return x.flatten(1) if x.shape[-2:] == (2, 2) else F.adaptive_avg_pool2d(x, 2).flatten(1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        # ReLU and max-pooling commute, and a quarter of the values is left after pooling.
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


@register_model  # type: ignore[untyped-decorator]
def cnns_bn(pretrained: bool = False, **kwargs: int) -> SmallCNN:
    """Return the 16-32-64 network of 26 thousand parameters."""
    return _small((16, 32, 64), pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator]
def cnn_bn(pretrained: bool = False, **kwargs: int) -> SmallCNN:
    """Return the 32-64-128 network of 99 thousand parameters."""
    return _small((32, 64, 128), pretrained, kwargs)


# What timm's factory hands to every model beside the caller's arguments.
_TIMMS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _small(widths: tuple[int, int, int], pretrained: bool, kwargs: Mapping[str, int]) -> SmallCNN:
    if pretrained:
        raise UserError("the small networks have no published weights; leave `pretrained` out")
    return SmallCNN(widths, **{key: value for key, value in kwargs.items() if key not in _TIMMS})
