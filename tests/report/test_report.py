"""The report of a small synthetic run, read as its readers do."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fabricated
import numpy as np
import pandas as pd
import pytest
from fabricated import ATTACKS, SAMPLES, STEPS, outcome, recipe, refused
from rich.console import Console

from ntbench.errors import UserError
from ntbench.measure.tables import coverage_table, leaderboard_table
from ntbench.report.page import coverage_lines, terminal_table, write_report
from ntbench.suite import Suite
from ntbench.types import Protection, Provenance, Result, Task, Trajectory

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>alert(1)</script>&_$[red]"
TASK = Task(source="a_b", target="c")


def suite() -> Suite:
    keep = {"attack": "weak", "mask": "keep"}
    names = [{"name": "none"}, {"name": "scratch"}, {"name": "ntp", "paper": keep}]
    return fabricated.suite(tasks=[TASK], defenses=[*names, {"name": "sophon", "label": HOSTILE}])


def result(defense: str, mask: str, attack: str, ratio: float, seed: int, **fields: Any) -> Result:
    name = "sophon" if defense == HOSTILE else defense
    cell = recipe(defense, attack, ratio, seed, mask=mask, task=TASK, name=name)
    random = np.random.default_rng([len(defense), len(mask), *attack.encode(), int(100 * ratio), seed])
    level = {"scratch": 0.6, "none": 0.75, "ntp": 0.5 if mask == "keep" else 0.62}.get(defense, 0.35)
    path = level * np.array([0.1, 0.2, 0.4, 0.6, 0.8, 1.0]) * (0.7 + 0.1 * np.log10(SAMPLES[ratio]))
    test, shift = (path + random.normal(0, 0.02, len(path))).tolist(), random.normal(0, 0.02)
    costs = {"pretrain_seconds": 2.0, "pretrain_flops": 100, "protect_seconds": 8.0, "protect_flops": 300}
    values: dict[str, Any] = {
        "protection": Protection(source_before=0.99, source_after=0.98, zero_shot=0.1, sparsity=0.0, **costs),
        "provenance": Provenance(data={"c/test": "feedc0de"}, versions={"ntbench": "0.1.0"}, device="cpu"),
    }
    return outcome(cell, tuple(test), shift, **values | fields)


def results() -> list[Result]:
    rows = [("none", "dense"), ("scratch", "dense"), ("ntp", "dense"), ("ntp", "keep"), (HOSTILE, "dense")]
    found = [
        result(*row, attack, ratio, seed)
        for row in rows
        for attack in ATTACKS
        for ratio in SAMPLES
        for seed in (0, 1, 2)
    ]
    broken = result(
        "none",
        "dense",
        "strong",
        0.1,
        1,
        status="diverged",
        error="loss <i>is</i> nan_\nTraceback",
        trajectory=Trajectory(),
    )
    absent = [refused(result("none", "keep", "weak", 1.0, seed), "none releases no <mask>") for seed in (0, 1, 2)]
    return [broken if r.cell.coordinates == broken.cell.coordinates else r for r in found] + absent


class Page(HTMLParser):
    """Collects what a page would fetch, and the text that it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run"), results(), suite()).parent


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


def test_every_file_is_written(report: Path) -> None:
    names = {path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file()}
    figures = {f"figures/{name}-a_b-c.{kind}" for kind in ("png", "pdf") for name in
               ("learning_curves", "overhead_curves", "attack_heatmap", "intactness")}  # fmt: skip
    tables = {
        "results.csv",
        "coverage.csv",
        "trajectories.parquet",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.tex",
    }
    assert names == {"index.html"} | tables | figures
    trajectories = pd.read_parquet(report / "trajectories.parquet")
    assert len(trajectories) == (len(results()) - 4) * len(STEPS) * 2


def by_hand(paths: pd.DataFrame, defense: str, mask: str) -> pd.DataFrame:
    rows = paths[(paths["defense"] == defense) & (paths["mask"] == mask)]
    curve = {}
    for samples, part in rows.groupby("samples_n"):
        wide = part.pivot(index=["attack", "seed", "step"], columns="split", values="value").reset_index()
        best = wide.loc[wide.groupby(["attack", "seed"])["val"].idxmax()]
        whole = [attack for attack, group in best.groupby("attack") if len(group) == 3]
        chosen = max(whole, key=lambda attack: best.loc[best["attack"] == attack, "val"].mean())
        curve[samples] = best[best["attack"] == chosen].set_index("seed")["test"]
    return pd.DataFrame(curve).T.sort_index()


def test_the_numbers_can_be_recomputed_from_the_trajectories(report: Path) -> None:
    paths, board = pd.read_parquet(report / "trajectories.parquet"), pd.read_csv(report / "leaderboard.csv")
    scratch = by_hand(paths, "scratch", "dense")
    assert len(board) == 5
    for row in board.itertuples():
        gap = by_hand(paths, str(row.defense), str(row.mask)) - scratch
        areas = [np.trapezoid(gap[seed], np.log(gap.index.to_numpy(float))) for seed in (0, 1, 2)]
        assert row.slc == pytest.approx(np.mean(areas), abs=1e-5)
        assert row.slc_norm == pytest.approx(np.mean(areas) / np.log(100), abs=1e-5)
    ranked = board[board["ranked"]].sort_values("slc")
    assert ranked["rank"].tolist() == [1, 2, 3]
    assert ranked["defense"].tolist() == [HOSTILE, "ntp", "none"]


def test_names_from_submissions_are_text_and_not_markup(report: Path, page: Page) -> None:
    html = (report / "index.html").read_text(encoding="utf-8")
    assert "script" not in page.tags
    assert "<i>is</i>" not in html
    assert HOSTILE in page.text
    assert "loss <i>is</i> nan_" in page.text
    markdown = (report / "leaderboard.md").read_text(encoding="utf-8")
    assert r"| &lt;script&gt;alert(1)&lt;/script&gt;&amp;\_$\[red\] |" in markdown


def test_the_page_fetches_nothing(page: Page) -> None:
    html = "".join(page.shown)
    assert len(page.links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"url\(|@import|https?://", html)
    assert {"link", "iframe", "object", "script", "base"}.isdisjoint(page.tags)


def test_the_page_says_where_the_numbers_come_from_and_what_failed(page: Page) -> None:
    assert "1 of 135 cells failed" in page.text
    assert "Traceback" not in page.text
    assert "feedc0de" in page.text
    assert "tiny-1: three attacks" in page.text
    assert "ranked by its" in page.text
    assert re.search(r"Selection rule val : the attacker picks both", page.text)


def test_the_page_says_what_faced_what(report: Path, page: Page) -> None:
    assert "3 more cells are inapplicable" in page.text
    assert "weak (none releases no <mask>)" in page.text
    board, coverage = pd.read_csv(report / "leaderboard.csv"), pd.read_csv(report / "coverage.csv")
    assert not ((board["defense"] == "none") & (board["mask"] == "keep")).any()
    assert coverage["runs"].sum() == 135 and coverage["failed"].sum() == 1 and coverage["not_applicable"].sum() == 3
    lines = coverage_lines(coverage_table(results()))["a_b-c"]
    keep = next(line for line in lines if (line["defense"], line["mask"]) == ("none", "keep"))
    assert keep == {
        "defense": "none",
        "mask": "keep",
        "attacks": 0,
        "runs": 0,
        "failed": 0,
        "refused": {"none releases no <mask>": ["weak"]},
    }
    assert next(line for line in lines if line["failed"])["attacks"] == len(ATTACKS)


def test_a_lower_bound_is_marked(report: Path, page: Page) -> None:
    board = pd.read_csv(report / "leaderboard.csv").set_index("defense")
    value, share = board.loc[[HOSTILE], ["overhead_steps_90", "overhead_steps_90_censored"]].to_numpy()[0]
    assert share == 1
    text = f"> {value:.1f}"
    assert text in page.text
    assert text.replace(">", "&gt;") in (report / "leaderboard.md").read_text(encoding="utf-8")
    assert text.replace(">", "$>$") in (report / "leaderboard.tex").read_text(encoding="utf-8")


def test_latex_rows_have_one_cell_per_column(report: Path) -> None:
    text = (report / "leaderboard.tex").read_text(encoding="utf-8")
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 5
    assert all(len(re.findall(r"(?<!\\)&", line)) == 12 and line.endswith(r"\\") for line in body)
    assert r"\textit{scratch}" in text
    assert r"a\_b-c" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(report: Path, tmp_path: Path) -> None:
    shutil.copy(report / "leaderboard.tex", tmp_path)
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "paper.tex").write_text(head + r"\input{leaderboard}\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "paper.pdf").exists()


def partial_runs() -> Iterator[Any]:
    whole = results()
    yield pytest.param([r for r in whole if r.cell.defense.name != "scratch"], id="no scratch")
    yield pytest.param([r for r in whole if r.cell.ratio == 1], id="one ratio")
    yield pytest.param([r for r in whole if r.cell.seed == 0], id="one seed")
    bare = {"status": "error", "error": "boom", "trajectory": Trajectory(), "protection": None, "provenance": None}
    yield pytest.param([r.model_copy(update={**bare, "samples": None}) for r in whole[:4]], id="all failed")


@pytest.mark.parametrize("found", [*partial_runs()])
def test_a_partial_run_has_dashes(found: list[Result], tmp_path: Path) -> None:
    index = write_report(tmp_path, found, suite(), "oracle")
    for path in (index, tmp_path / "report/leaderboard.md", tmp_path / "report/leaderboard.tex"):
        text = re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"\b(nan|none|<na>|inf)\b(?!_)", text.replace("none", ""), re.IGNORECASE)
        assert re.search(r"[>|\s]-[<|\s]", text)
    terminal = io.StringIO()
    Console(file=terminal, width=160).print(terminal_table(leaderboard_table(found, suite())))
    assert "nan" not in terminal.getvalue().lower()


def test_no_results_is_a_mistake_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results yet; run `ntbench run tiny`"):
        write_report(tmp_path, [], suite())
    assert not list(tmp_path.iterdir())


def test_an_unknown_selection_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'oracle'"):
        write_report(tmp_path, results(), suite(), "oracel")


def test_the_terminal_table_shows_names_as_they_are() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal_table(leaderboard_table(results(), suite())))
    text = console.export_text()
    assert HOSTILE in text
    assert "> " in text
    assert "ntp* " in text and "Selection rule: val." in " ".join(text.split())
    assert "nan" not in text.lower()


def test_the_terminal_table_waits_neither_for_figures_nor_for_torch() -> None:
    code = "import sys, ntbench.report.page; print({'seaborn', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
@pytest.mark.parametrize("width", [1400, 700])
def test_a_browser_shows_the_page(report: Path, tmp_path: Path, width: int) -> None:
    probe = (
        "<script>addEventListener('load', () => { const b = document.documentElement; document.title = JSON.stringify("
        "[b.scrollWidth <= b.clientWidth, ...[...document.images].map(i => i.naturalWidth)]); });</script></body>"
    )
    html = (report / "index.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(html.replace("</body>", probe), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    command = [str(CHROMIUM), *flags, (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1] == "[true,1400,1400,1400,1400]"  # type: ignore[index]
