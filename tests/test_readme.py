"""The README's example is real: it is extracted, checked and short."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ntbench.report.display import factor, number, points, with_interval

ROOT = Path(__file__).parent.parent


def example() -> str:
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert found
    return found.group(1)


def test_example_is_about_thirty_lines() -> None:
    assert len([line for line in example().splitlines() if line.strip()]) <= 30


def test_example_keeps_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "uniform.py"
    file.write_text(example(), encoding="utf-8")
    command = [sys.executable, "-c", "from ntbench.cli import app; app()", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\$ make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M):
        assert f"\n{target}:" in makefile


def test_its_figures_are_those_of_the_published_rows() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (\w+) \| (-?[\d.]+ \[.*\]) \| (.*) \| (.*) \| (.*) \| (\w+) \|$", text, re.M)
    assert len(lines) == 5
    for defense, *told in lines:
        row = published(defense)
        shown = number(row["slc"], signed=True), factor(row["speedup"]), points(row["drop"]), row["verdict"]
        assert told == [with_interval(row, "leak", signed=False), *shown]
    assert f"(SLC-AUC {published('sophon')['paper_slc']:.2f})" in text.replace("\n", " ")


def published(defense: str) -> dict[str, Any]:
    """Return the dense row of a defense on the board of `quick`."""
    file = ROOT / "leaderboard" / "results" / "quick" / defense / "digits-digits_m.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    found: dict[str, Any] = next(r for r in rows if r["track"] == "target" and r["mask"] == "dense")
    return found
