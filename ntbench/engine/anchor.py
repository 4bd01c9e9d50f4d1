"""What scores 1 on a domain, where an objective has no natural end: measured once, on seeds that no board uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ntbench.engine.calibrate import Compute, baseline_cells, calibrated
from ntbench.measure.calibration import calibration
from ntbench.suite import Suite
from ntbench.tasks.data import load_domain
from ntbench.tasks.objective import Objective, objective_of
from ntbench.types import Level, Task

BEYOND = 4
"""How many of a suite's longest horizons the best baseline trains for, so that nobody passes it."""


def anchored(suite: Suite, compute: Compute, tell: Callable[[str], None], cache: Path) -> Suite:
    """Return the suite with T90 and plateau wherever it has none, and an objective that knows what scores 1.

    That is what the baseline reaches on all of a domain's training images in four times the longest horizon; T90 is
    measured before it, and plateaus are told on its scale. Domains that the suite tells of stay as they are, and so
    does an objective that asks for nothing.
    """
    before, measured = objective_of(suite.objective), calibrated(suite, compute, tell)
    places = {domain: task for task in suite.tasks for domain in (task.source, task.target)}
    missing = before.unanchored(places)
    if not missing:
        return measured
    longest = max(level.t90 or 0.0 for task in measured.tasks for level in task.levels)
    plateaus = {
        name: _plateau(suite, _alone(name, places[name], cache), BEYOND * longest, compute, tell) for name in missing
    }
    after = before.anchored(plateaus)
    tasks = tuple(
        _rescaled(task, given, before, after) for task, given in zip(measured.tasks, suite.tasks, strict=True)
    )
    objective = suite.objective.model_copy(update={"params": suite.objective.params | after.spec.tables})
    return measured.model_copy(update={"objective": objective, "tasks": tasks})


def _alone(name: str, task: Task, cache: Path) -> Task:
    """Return the task of a domain by itself, whose last level are all of its training images."""
    held = load_domain(name, task.image_size, cache, task.train_samples, task.scored_samples)
    count = len(held.train)
    # A task has two levels; nothing of the first one runs.
    levels = (Level(samples=max(1, count // 2)), Level(samples=count))
    return task.model_copy(
        update={"source": name, "target": name, "label": name, "defended": None, "shared": True, "levels": levels}
    )


def _plateau(suite: Suite, task: Task, t90: float, compute: Compute, tell: Callable[[str], None]) -> float:
    samples = task.levels[-1].samples
    tell(f"{task.title}: measuring what scores 1, all {samples} samples")
    found = calibration(compute(baseline_cells(suite, task, {samples: t90})))
    tell(f"  {task.title}, all {samples} samples: {found.plateau:.4f} after {found.steps} steps, by {found.attack}")
    return found.plateau


def _rescaled(task: Task, given: Task, before: Objective, after: Objective) -> Task:
    """Return a task whose plateaus, where they were not given, are told on the scale of another objective."""
    before, after = before.at(task.target), after.at(task.target)
    levels = tuple(
        level.model_copy(update={"plateau": round(after.converted(level.plateau, before), 4)})
        if level.plateau is not None and known.plateau is None
        else level
        for level, known in zip(task.levels, given.levels, strict=True)
    )
    return task.model_copy(update={"levels": levels})
