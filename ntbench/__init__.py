"""ntbench: how much does a non-transferable model really cost its attacker, compared with training from scratch?"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ntbench.learn.cards import load_release

__all__ = ["load_release"]


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is asked for: the command line needs none of it."""
    if name == "load_release":
        from ntbench.learn.cards import load_release

        return load_release
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
