"""What scores 1 on a domain, where an objective has no natural end: measured once, on seeds that no board uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ntbench.engine.calibrate import Compute, baseline_cells, calibrated
from ntbench.measure.calibration import calibration
from ntbench.suite import Suite
from ntbench.tasks.data import load_domain
from ntbench.tasks.objective import objective_of
from ntbench.types import Level, Task

BEYOND = 4
"""How many horizons the best baseline trains for, so that nobody passes it."""


def anchored(suite: Suite, compute: Compute, tell: Callable[[str], None], cache: Path) -> Suite:
    """Return the suite with an objective that knows what the baseline reaches on all of a domain's training images.

    Domains that the suite tells of stay as they are, and so does an objective that asks for nothing.
    """
    objective = objective_of(suite.objective)
    places = {domain: task for task in suite.tasks for domain in (task.source, task.target)}
    missing = objective.unanchored(places)
    if not missing:
        return suite
    plateaus = {name: _plateau(suite, _alone(name, places[name], cache), compute, tell) for name in missing}
    return suite.model_copy(update={"objective": objective.anchored(plateaus).spec})


def _alone(name: str, task: Task, cache: Path) -> Task:
    """Return the task of a domain by itself, whose last level are all of its training images."""
    held = load_domain(name, task.image_size, cache, task.train_samples, task.scored_samples)
    count = len(held.train)
    # A task has two levels; the first one counts as measured, so that nothing of it runs.
    levels = (Level(samples=max(1, count // 2), t90=1.0, plateau=1.0), Level(samples=count))
    return task.model_copy(
        update={"source": name, "target": name, "label": name, "defended": None, "shared": True, "levels": levels}
    )


def _plateau(suite: Suite, task: Task, compute: Compute, tell: Callable[[str], None]) -> float:
    alone = calibrated(suite.model_copy(update={"tasks": (task,)}), compute, tell).tasks[0]
    whole = alone.levels[-1]
    assert whole.t90 is not None
    found = calibration(compute(baseline_cells(suite, alone, {whole.samples: BEYOND * whole.t90})))
    tell(
        f"  {task.title}, all {whole.samples} samples: {found.plateau:.4f} after {found.steps} steps, by {found.attack}"
    )
    return found.plateau
