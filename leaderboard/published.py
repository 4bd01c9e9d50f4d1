"""Published rows: what one defense did on one task, with every cell's accuracies, so that anybody can recompute it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from ntbench.errors import UserError
from ntbench.ranking import COLUMNS
from ntbench.suite import AttackEntry, DefenseEntry, PaperSetting, Suite
from ntbench.types import Arch, Budget, Cell, Mask, MethodSpec, Provenance, Recipe, Result, Status, Task, Training
from ntbench.types import Trajectory as Path_

TEXTS = ("paper_attack", "paper_mask", "worst_attack", "worst_attacks", "note")
FLAGS = ("ranked", "control", "holds", "thin")
COUNTS = ("seeds", "cells", "failed")
PLACE = ("rank", "rank_low", "rank_high", "task", "defense", "mask")
METRICS = tuple(name for name in COLUMNS if name not in (*TEXTS, *FLAGS, *COUNTS, *PLACE))

Accuracy = Annotated[float, Field(ge=0, le=1, strict=True)]
