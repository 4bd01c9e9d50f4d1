"""What somebody has on disk: two folders of small images by class, and a network that knows the first of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ntbench.learn.fit import fit
from ntbench.learn.models import build, pack
from ntbench.tasks.data import load_domain
from ntbench.types import Arch, Training

SIZE, EACH = 8, 14
CLASSES = {"source": 3, "target": 2}


@dataclass(frozen=True)
class Owner:
    """Folders, and files of the same network without protection and with it."""

    source: Path
    target: Path
    clean: Path
    release: Path


def owner(root: Path) -> Owner:
    """Make what an owner has; the protected weights are the clean ones with noise, saved in another wrapping."""
    for name, classes in CLASSES.items():
        _images(root / name, classes)
    source = load_domain(f"folder:{root / 'source'}", SIZE)
    model = build(Arch(name="cnns_bn"), source.classes, seed=3)
    for _ in fit(model, source.train, Training(steps=40, lr=3e-3, batch_size=16), torch.Generator().manual_seed(0)):
        pass
    clean = pack(model)
    random = torch.Generator().manual_seed(1)
    noisy = {
        n: w + 0.1 * w.std() * torch.randn(w.shape, generator=random) if w.ndim > 1 else w for n, w in clean.items()
    }
    torch.save({"state_dict": {f"module.{name}": weight for name, weight in clean.items()}}, root / "clean.pt")
    save_file(noisy, root / "release.safetensors")
    return Owner(root / "source", root / "target", root / "clean.pt", root / "release.safetensors")


def _images(folder: Path, classes: int) -> None:
    random = np.random.default_rng(classes)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        pattern = random.integers(0, 256, (SIZE, SIZE, 3))
        for k in range(EACH):
            pixels = 0.7 * pattern + 0.3 * random.integers(0, 256, (SIZE, SIZE, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"class{label}" / f"{k}.png")
