"""T90 and plateau of the baseline, measured once a task and sample count on seeds that no board uses."""

from __future__ import annotations

from collections.abc import Callable

from ntbench.engine.plan import cells_of
from ntbench.measure.calibration import Calibration, calibration
from ntbench.registry import registry
from ntbench.suite import Suite
from ntbench.types import BASELINES, Cell, Level, Result, Task, Training

SEEDS = (1000, 1001, 1002)
GUESS = 64.0
"""Steps that T90 is taken for until it is measured; 8 times as many are the first budget."""
LONGEST = 8192.0

Compute = Callable[[list[Cell]], list[Result]]


def calibrated(suite: Suite, compute: Compute, tell: Callable[[str], None]) -> Suite:
    """Return the suite with T90 and plateau at every sample count that lacks them.

    The budget doubles until the baseline gains less than a point over its second half and has had 8 times T90.
    """
    tasks = tuple(_calibrated(suite, task, compute, tell) for task in suite.tasks)
    return suite.model_copy(update={"tasks": tasks})


def guessed(suite: Suite) -> Suite:
    """Return the suite with a guess wherever nobody has measured T90."""
    tasks = tuple(
        task.model_copy(update={"levels": tuple(_at(level, level.t90 or GUESS) for level in task.levels)})
        for task in suite.tasks
    )
    return suite.model_copy(update={"tasks": tasks})


def _calibrated(suite: Suite, task: Task, compute: Compute, tell: Callable[[str], None]) -> Task:
    waiting = {level.samples: GUESS for level in task.levels if level.t90 is None and not _only_protocols(suite)}
    found = {level.samples: level for level in task.levels if level.samples not in waiting}
    while waiting:
        tell(f"{task.title}: measuring T90 of the baseline at {', '.join(map(str, waiting))} samples")
        results = compute(baseline_cells(suite, task, waiting))
        for samples, guess in list(waiting.items()):
            at = calibration([result for result in results if result.cell.samples == samples])
            if at.settled or guess >= LONGEST:
                tell(_line(samples, at))
                found[samples] = Level(samples=samples, t90=round(at.t90, 1), plateau=round(at.plateau, 4))
                del waiting[samples]
            else:
                waiting[samples] = 2 * guess
    return task.model_copy(update={"levels": tuple(found[level.samples] for level in task.levels)})


def _only_protocols(suite: Suite) -> bool:
    return all(entry.protocol for entry in suite.attacks)


def _line(samples: int, at: Calibration) -> str:
    return (
        f"  {samples} samples: T90 = {at.t90:.1f} steps, plateau = {at.plateau:.4f}, {100 * at.gain:+.1f} points over "
        f"the second half of {at.steps} steps, by {at.attack}"
    )


def baseline_cells(suite: Suite, task: Task, guesses: dict[int, float]) -> list[Cell]:
    """Return the baseline's runs of a task up to 8 times what T90 is taken for, at the sample counts that have one."""
    levels = tuple(_at(level, guesses.get(level.samples, GUESS)) for level in task.levels)
    rows = tuple(entry for entry in suite.defenses if entry.name in BASELINES)
    grid = suite.model_copy(
        update={
            "name": f"{suite.name}_calibration",
            "seeds": SEEDS,
            "horizon": 8.0,
            "own": False,
            # Baselines start from no model of the defender's; where one would be a file, none is made in its place.
            "pretrain": Training(trained=False) if suite.releases else suite.pretrain,
            "tasks": (task.model_copy(update={"levels": levels}),),
            "defenses": rows,
            "attacks": tuple(entry for entry in suite.attacks if entry.protocol is None),
        }
    )
    return [cell for cell in cells_of(grid) if cell.samples in guesses and _counts(cell)]


def _counts(cell: Cell) -> bool:
    attack = registry.create(cell.attack)
    return cell.mask == "dense" and attack.access.track == "target" and not attack.at_horizon_alone


def _at(level: Level, t90: float) -> Level:
    return level.model_copy(update={"t90": t90})
