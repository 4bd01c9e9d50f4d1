"""What scores are called: boards of classifiers speak of accuracy, and those of any other objective of scores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

SPOKEN = "classification"
"""The objective whose words all texts are written in."""
REASONS = ("reason", "gates")
"""Columns of tables that hold such texts."""
_SCORES = {
    r"\baccuracies\b": "scores",
    r"\baccuracy\b": "score",
    r"\bAccuracies\b": "Scores",
    r"\bAccuracy\b": "Score",
    r"\bWhich (source|target) test images were right\b": r"What each \1 test image adds to the score",
    r"\bpacked as bits in base64\b": "packed in base64",
    r"\bother test images are right\b": "test images add other parts to the score",
}


def worded(text: str, objective: str) -> str:
    """Return a text about the scores of classifiers as one about those of an objective, given by its name."""
    for said, other in _SCORES.items() if objective != SPOKEN else ():
        text = re.sub(said, other, text)
    return text


def worded_frame(frame: pd.DataFrame, objective: str) -> pd.DataFrame:
    """Return a table whose headings and reasons are in the words of an objective, given by its name."""
    if objective == SPOKEN:
        return frame
    said = {name: frame[name].map(lambda text: worded(text, objective)) for name in REASONS if name in frame}
    return frame.assign(**said).rename(columns=lambda name: worded(name, objective))
