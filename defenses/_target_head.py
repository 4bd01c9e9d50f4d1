"""What classifies target features where the released head has other classes."""

import torch
from torch import nn

from ntbench.method import Context, Split, Training, features, fit, head


def target_head(model: nn.Module, ctx: Context, steps: int) -> nn.Linear:
    """Return the model's own head where the class counts agree, else one that knows the target and is frozen.

    The latter is trained on the features of the encoder as it stands, and is no part of what is released; the model is
    left in eval mode.
    """
    assert ctx.target is not None
    own = head(model)
    if own.out_features == ctx.target_classes:
        return own
    with torch.no_grad():
        model.eval()
        known = torch.cat([features(model, x) for x in ctx.target.x.split(200)])
        seen = Split(known[:, :, None, None], ctx.target.y)
        classifier = nn.Linear(own.in_features, ctx.target_classes).to(ctx.device)
        bound, generator = own.in_features**-0.5, ctx.generator("target head")
        for p in classifier.parameters():
            p.copy_(torch.empty(p.shape).uniform_(-bound, bound, generator=generator))
    # Splits hold images, so features pass as images of one pixel.
    training, batches = Training(lr=1e-2, steps=steps), ctx.generator("target head", "batches")
    for _ in fit(nn.Sequential(nn.Flatten(), classifier), seen, training, batches):
        pass
    return classifier.requires_grad_(False)
