r"""Tables of a paper: structure, marks, escapes, and, where there is a LaTeX, that they compile."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boards
import pytest
from boards import HOSTILE, NAMES, tables

from ntbench.report.best import best_and_ties
from ntbench.report.columns import HEADLINE, LEAK, SLC
from ntbench.report.files import write_all
from ntbench.report.latex import ONE, TWO, Told, latex_tables
from ntbench.report.page import OURS, report_files
from ntbench.report.views import View

TABLES, FORMS = ("leaderboard", "beside", "factors", "tasks"), ("", "-column")
TABULAR = re.compile(
    r"\\begin{tabularx}{(\\\w+)}{(.*?)}\n\\toprule\n(.*?) \\\\\n\\midrule\n(.*?)\\bottomrule", re.DOTALL
)
NUMBER = r"[+-]?\d+(\.\d+)?(e-?\d+)?"
CELL = re.compile(rf"(\\bfseries )?({NUMBER}|{{[^{{}}]*}})({{\$\^\\dagger\$}})?")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        # Figures take a hundred times as long as tables.
        patch.setattr("ntbench.report.sections.task_pictures", lambda *_: {})
        patch.setattr("ntbench.report.page.map_pictures", lambda *_: {})
        files = report_files(tables(), boards.suite(NAMES), {})
    write_all(out, {name: data for name, data in files.items() if name.endswith((".tex", ".bib"))}, OURS)
    return out


def names() -> list[str]:
    return [f"{name}{form}" for name in TABLES for form in FORMS]


def specs(said: str) -> list[str]:
    """Return the kinds of columns of a tabular: S, l or X."""
    bare = re.sub(r"@{\\;}|>{\\raggedright\\arraybackslash}|\[table-format=-?\d+\.\d+(e\d+)?\]| ", "", said)
    assert set(bare) <= set("SlX"), said
    return list(bare)


def rows(body: str) -> Iterator[list[str]]:
    for line in body.strip().splitlines():
        assert line.endswith(r" \\"), line
        yield [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))]


@pytest.mark.parametrize("name", names())
def test_every_line_has_a_cell_for_every_column_and_numbers_stand_in_their_columns(report: Path, name: str) -> None:
    text = (report / f"{name}.tex").read_text(encoding="utf-8")
    found = TABULAR.findall(text)
    assert found
    for width, said, _, body in found:
        assert width == (r"\columnwidth" if name.endswith("-column") else r"\textwidth")
        kinds = specs(said)
        for cells in rows(body):
            assert len(cells) == len(kinds)
            for kind, cell in zip(kinds, cells, strict=True):
                assert kind != "S" or CELL.fullmatch(cell), cell
    star = "" if name.endswith("-column") else "*"
    for what in (f"begin{{table{star}}}", f"end{{table{star}}}", "end{tabularx}", "caption{", "label{tab:"):
        assert text.count(f"\\{what}") == len(found), what
    labels = re.findall(r"\\label{(.*?)}", text)
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"tab:[A-Za-z0-9-]+", label) for label in labels)


def test_headings_count_like_columns(report: Path) -> None:
    for _, said, head, _ in TABULAR.findall((report / "leaderboard.tex").read_text(encoding="utf-8")):
        wide = sum(int(n) - 1 for n in re.findall(r"\\multicolumn{(\d)}", head))
        assert len(re.split(r"(?<!\\)&", head)) + wide == len(specs(said))


def test_labels_of_both_forms_can_stand_in_one_document(report: Path) -> None:
    every = [
        label
        for name in names()
        for label in re.findall(r"\\label{(.*?)}", (report / f"{name}.tex").read_text("utf-8"))
    ]
    assert len(set(every)) == len(every)


def test_one_column_has_few_numbers_and_two_have_all(report: Path) -> None:
    wide, narrow = ((report / f"leaderboard{form}.tex").read_text(encoding="utf-8") for form in FORMS)
    assert "Strongest attack" in wide and "Strongest attack" not in narrow
    assert max(specs(said).count("S") for _, said, _, _ in TABULAR.findall(narrow)) <= 5
    factors = (report / "factors-column.tex").read_text(encoding="utf-8")
    assert max(len(specs(said)) for _, said, _, _ in TABULAR.findall(factors)) <= 6
    values = sum(len(specs(said)) - 1 for _, said, _, _ in TABULAR.findall(factors))
    assert values == 3 * 2 * sum(map(len, boards.FACTORS.values())), "no value is lost between the parts"


def test_names_are_text_and_controls_stand_apart(report: Path) -> None:
    text = (report / "leaderboard-column.tex").read_text(encoding="utf-8")
    name = r"$<$script$>$alert(1)$<$/script$>$\&\_\allowbreak{}\$\textbackslash{}frac\{\${[}red{]}"
    assert rf"{name}\ntbcite{{arXiv:2410.08015}} &" in text
    assert r"\textit{scratch}" in text
    assert HOSTILE not in text
    for name in names():
        said = (report / f"{name}.tex").read_text(encoding="utf-8")
        bare = re.sub(r"\\[\\{}]", "", said)
        assert bare.count("{") == bare.count("}")
        assert said.count(r"\begin{") == said.count(r"\end{")


def test_captions_name_the_task_once_and_gates_stand_where_they_judge(report: Path) -> None:
    wide, beside = ((report / f"{name}.tex").read_text(encoding="utf-8") for name in TABLES[:2])
    assert r"\caption{tiny-2, photo to sketch. Brackets: 95\% intervals. Gates: converged" in wide
    for caption in re.findall(r"\\caption{(.*)}\n", beside):
        assert caption.count("Gates: ") == ("Attackers who also" in caption or "of a black box" in caption)


def test_every_cited_key_is_in_the_bibliography(report: Path) -> None:
    keys = set(re.findall(r"@misc{(.*?),", (report / "papers.bib").read_text(encoding="utf-8")))
    cited = {
        key for name in names() for key in re.findall(r"\\ntbcite{(.+?)}", (report / f"{name}.tex").read_text("utf-8"))
    }
    assert cited == {"arXiv:2410.08015"}
    assert keys == {"arXiv:2410.08015", "arXiv:2502.13593"}


def line(name: str, leak: float, width: float, **more: Any) -> dict[str, Any]:
    row = {"track": "target", "defense": name, "mask": "dense", "ranked": True, "control": False, "baseline": False}
    row |= {"leak": leak, "leak_low": leak - width, "leak_high": leak + width, "slc": 100 * leak, "reason": ""}
    return row | more


BOARD = [
    line("lost", -0.5, 0.0, reason="unusable: the source is lost"),
    line("control", -0.2, 0.0, control=True),
    line("best", 0.1, 0.1),
    line("touches", 0.25, 0.05),
    line("apart", 0.26, 0.05),
    line("unknown", float("nan"), float("nan")),
]


def test_the_least_is_best_and_what_overlaps_it_ties() -> None:
    assert best_and_ties(BOARD, LEAK) == ({2}, {3})
    assert best_and_ties(BOARD, SLC) == ({2}, set()), "without intervals nothing is a tie"
    assert best_and_ties(BOARD[:3], LEAK) == (set(), set()), "one row alone is no winner"
    assert best_and_ties([*BOARD, line("same", 0.1001, 0.0)], LEAK) == ({2, 6}, {3})
    assert best_and_ties(BOARD, HEADLINE[0]) == (set(), set())


def test_marks_stand_at_their_numbers_and_the_caption_tells_them() -> None:
    told = Told(View("k", "t", (HEADLINE[0], LEAK, SLC), BOARD), "About $x_1$.", "tab:k")
    text = latex_tables([told], ONE, {"best": "key"})
    assert r"best\ntbcite{key} & \bfseries 0.10 & {[}0.00, 0.20{]} & \bfseries +10.00 \\" in text
    assert r"touches & 0.25{$^\dagger$} & {[}0.20, 0.30{]} & +25.00 \\" in text
    assert r"unknown & {--} &  & {--} \\" in text
    assert r"\textit{control} & -0.20 & {[}$-$0.20, $-$0.20{]} & -20.00 \\" in text
    assert r"S[table-format=-1.2]@{\;}l S[table-format=-2.2]" in text
    assert r"\caption{About \$x\_1\$. Bold: the least of a column" in text
    assert "Bold" not in latex_tables([told._replace(view=View("k", "t", (HEADLINE[0],), BOARD))], TWO, {})


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(report: Path, tmp_path: Path) -> None:
    for path in report.glob("leaderboard*"):
        shutil.copy(path, tmp_path)
    body = r"\input{leaderboard}\input{leaderboard-column}"
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,tabularx,siunitx}\newcommand{\ntbcite}[1]{~\cite{#1}}"
        rf"\begin{{document}}{body}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
