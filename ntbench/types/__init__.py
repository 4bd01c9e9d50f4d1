"""The value objects that are hashed, stored and published; importing them costs no torch.

Here enter words, recipes and results; nothing that computes.
"""

from ntbench.types.budgets import Budget, Epochs
from ntbench.types.columns import Columns, Factor, Texts
from ntbench.types.gathered import columns_of
from ntbench.types.recipes import Arch, Cell, Channels, MethodSpec, Positive, Training, Tuning
from ntbench.types.results import Protection, Provenance, Result
from ntbench.types.tasks import CLASSIFICATION, Level, ObjectiveSpec, Task, domain_label
from ntbench.types.trajectory import Trajectory, pack_bits, pack_scores, unpack_bits, unpack_scores
from ntbench.types.words import (
    BASELINES,
    CONTROLS,
    FILE,
    NONE,
    SCHEMA_VERSION,
    SETTLED,
    Grown,
    Kind,
    Knowledge,
    Mask,
    Precision,
    Recipe,
    Rehearsal,
    Selection,
    Status,
    Track,
    digest,
    with_mask,
)

__all__ = [
    "BASELINES",
    "CLASSIFICATION",
    "CONTROLS",
    "FILE",
    "NONE",
    "SCHEMA_VERSION",
    "SETTLED",
    "Arch",
    "Budget",
    "Cell",
    "Channels",
    "Columns",
    "Epochs",
    "Factor",
    "Grown",
    "Kind",
    "Knowledge",
    "Level",
    "Mask",
    "MethodSpec",
    "ObjectiveSpec",
    "Positive",
    "Precision",
    "Protection",
    "Provenance",
    "Recipe",
    "Rehearsal",
    "Result",
    "Selection",
    "Status",
    "Task",
    "Texts",
    "Track",
    "Training",
    "Trajectory",
    "Tuning",
    "columns_of",
    "digest",
    "domain_label",
    "pack_bits",
    "pack_scores",
    "unpack_bits",
    "unpack_scores",
    "with_mask",
]
