"""The README's example is real: it is extracted, checked and short."""

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
