"""ntbench: how much does a non-transferable model really cost its attacker, compared with training from scratch?

`load_release` gives the model and the card of a file of weights. What is offered here is imported when it is first
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntbench.learn.cards import load_release

__version__ = "0.1.0"
__all__ = ["load_release"]

_PLACES = {"load_release": "ntbench.learn.cards"}


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
