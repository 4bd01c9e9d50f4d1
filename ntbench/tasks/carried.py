"""Which methods' ideas carry over to denoisers, and what the others ask for that a denoiser lacks."""

from __future__ import annotations

from typing import Any

CARRIED = frozenset(
    {"none", "scratch", "file", "public", "magnitude", "random_mask", "finetune", "perturb", "redraw", "flatten"}
)
"""Methods whose idea asks nothing of a task but its batches, its loss and its score, and that do not say so."""
_CLASSES = "it goes by the classes that a model predicts, and a denoiser predicts none"
_LABELS = "it reads class labels of the target, and a denoiser's images have none"
_VIEWS = "views of an image share its class, which a classifier needs and a denoiser does not"
LACKING = {
    "logit_flip": "a denoiser has no logits, and its noise with the sign turned is another function",
    "lp_ft": "a head learns on features that are computed once, and a denoiser's change with the noise of every batch",
    "rescale": "between a denoiser's layers lie group norms and bent activations, which no change of scale passes",
    "bn_adapt": "a denoiser's networks have no batch norm to adapt",
    "distill": _CLASSES,
    "transntl": _CLASSES,
    "fixmatch": _CLASSES,
    "ntl_source_only": _CLASSES,
    "simclr": _VIEWS,
    "ntp_ssl": _VIEWS,
    "ntl": f"{_LABELS}; ntl_generation has its idea for them",
    "sophon": f"{_LABELS}; sophon_generation has its idea for them",
    "ntp": f"{_LABELS}; ntp_generation has the part of its idea that needs none",
}


def lacking(method: Any) -> str:
    """Return what a method asks for that a denoiser lacks, or an empty string where nobody has said."""
    if method.name in LACKING:
        return LACKING[method.name]
    if getattr(method, "needs_target_labels", False):
        return _LABELS
    access = getattr(method, "access", None)
    return _CLASSES if access is not None and access.target == "unlabelled" else ""
