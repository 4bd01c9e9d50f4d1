"""ntbench: how much does a non-transferable model really cost its attacker, compared with training from scratch?

In a notebook::

    run = ntbench.load("runs/quick")       # what `ntbench run quick` has finished
    run.leaderboard()                      # a pandas frame
    run.plot.leak()                        # a matplotlib figure
    print(run.verdict("sophon"))

    done = ntbench.protect("sophon", model, source=(x, y), target=(u, v))
    ntbench.attack(done.model, source=(x, y), target=(u, v), undefended=model).plot.leak()

`slc_auc`, `uplift`, `leak`, `overhead` and `speedup` are the metrics on plain arrays. What is offered here is imported
when it is first used; neither runs nor metrics need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntbench.learn.cards import load_release
    from ntbench.measure.metrics import leak, overhead, slc_auc, speedup, uplift
    from ntbench.notebook.attacking import attack
    from ntbench.notebook.protecting import Protected, protect
    from ntbench.notebook.run import Run, load

__version__ = "0.1.0"
_PLACES = {
    **dict.fromkeys(("leak", "overhead", "slc_auc", "speedup", "uplift"), "ntbench.measure.metrics"),
    **dict.fromkeys(("Run", "load"), "ntbench.notebook.run"),
    **dict.fromkeys(("Protected", "protect"), "ntbench.notebook.protecting"),
    "attack": "ntbench.notebook.attacking",
    "load_release": "ntbench.learn.cards",
}
__all__ = [
    "Protected",
    "Run",
    "attack",
    "leak",
    "load",
    "load_release",
    "overhead",
    "protect",
    "slc_auc",
    "speedup",
    "uplift",
]


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    """Return what is offered, for completion and `help()`."""
    return sorted({*globals(), *__all__})
