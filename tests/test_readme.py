"""The README's example is real: it is extracted, checked and short."""

import json
import re
import subprocess
import sys
from pathlib import Path

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
    lines = re.findall(r"^\| (\w+) \| (-?[\d.]+ \[.*\]) \| ([-+.\d]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert len(lines) == 5
    for defense, *told in lines:
        row = published(defense)
        leak = f"{row['leak']:.2f} [{row['leak_low']:.2f}, {row['leak_high']:.2f}]"
        assert told == [leak, f"{row['slc']:+.2f}", f"{row['speedup']:.2f}", f"{100 * row['drop']:.1f}"]
    assert f"(SLC-AUC {published('sophon')['paper_slc']:.2f})" in text.replace("\n", " ")


def published(defense: str) -> dict[str, float]:
    """Return the dense row of a defense on the board of `quick`."""
    file = ROOT / "leaderboard" / "results" / "quick" / defense / "digits-digits_m.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    found: dict[str, float] = next(r for r in rows if r["track"] == "target" and r["mask"] == "dense")
    return found
