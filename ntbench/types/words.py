"""Words: what everything is named by, how it is hashed, and what a recipe is."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

SCHEMA_VERSION = 2

CONTROLS = frozenset({"none", "scratch", "public", "magnitude", "random_mask"})
"""The rows that a table is read against, whatever is chosen."""
BASELINES = ("scratch", "public")
"""The rows from which an attacker starts without the release."""
NONE = "none"
"""The registered name of the unprotected release."""
FILE = "file"
"""The registered name of a release that was made elsewhere and comes as a file."""

Kind = Literal["defense", "attack"]
Track = Literal["target", "source", "semi-supervised", "unlabelled", "queries"]
"""What an attacker holds besides the release."""
Status = Literal["ok", "error", "timeout", "diverged", "unusable", "inapplicable"]
SETTLED: tuple[Status, ...] = ("ok", "unusable", "inapplicable")
"""How a cell ends that did not fail; `unusable` is a defense that lost the source."""
Precision = Literal["float32", "bfloat16"]
Mask = Literal["dense", "keep"]
Knowledge = Literal["others", "own"]
"""How an attacker chooses: by what others saw, or by a fifth of its own samples that it does not train on."""
Selection = Literal["last", "best val", "best test"]
"""Which pass of a run a paper reports; `best test` chooses on the data that it then reports on."""

Rehearsal = Literal["target", "source"]
"""What a defender plays a task on who tunes: its own share of the target, or domains made from the source."""


def with_mask(label: object, mask: object) -> str:
    """Return what a row or an attack is called in tables: its label, and whether the released zeros are kept."""
    return f"{label} (mask kept)" if mask == "keep" else str(label)


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Recipe(BaseModel):
    """A frozen value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Grown(Recipe):
    """A recipe with fields that came later: at their defaults they are left out, so that older keys stay."""

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unused = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in dump(self).items() if name not in unused}
