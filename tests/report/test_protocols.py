"""The table of the papers' own protocols, from runs that nobody computed."""

from __future__ import annotations

import math
from typing import Any

from fabricated import TASK, outcome, recipe, suite, trajectory

from ntbench.measure.reproduced import Reproduction
from ntbench.report.page import report_files
from ntbench.report.protocols import protocols
from ntbench.report.tables import Tables
from ntbench.suite import Suite
from ntbench.types import Epochs, Result

LAST = {"none": 0.7, "scratch": 0.5, "ntp": 0.3}


def paper_suite() -> Suite:
    best = {"epochs": 2, "select": "best test"}
    attacks: list[dict[str, Any]] = [{"name": "finetune", "label": "theirs", "protocol": best}]
    attacks += [{"name": "finetune", "label": "kept", "params": {"mask": "keep"}, "protocol": {"epochs": 2}}]
    setting = {"attack": "kept", "mask": "keep", "scratch": "theirs"}
    rows = [{"name": "none"}, {"name": "scratch"}, {"name": "ntp", "paper": setting}, {"name": "sophon"}]
    return suite(attacks=attacks, defenses=rows, paper={"attack": "theirs"}, default="", seeds=(0, 1))


def results() -> list[Result]:
    best = Epochs(epochs=2, each=1, select="best test")
    found = []
    for row, reached in LAST.items():
        attack, mask, budget = ("kept", "keep", Epochs(epochs=2, each=1)) if row == "ntp" else ("theirs", "dense", best)
        for n in (10, 100):
            for seed in (0, 1):
                cell = recipe(row, attack, n, seed, mask=mask, budget=budget)
                found.append(outcome(cell, trajectory([reached], ends=budget.ends)))
    return found


def test_a_row_stands_under_its_papers_attack_beside_that_papers_scratch() -> None:
    (view,) = protocols(Reproduction.of(results(), paper_suite()), TASK)
    area = 0.2 * math.log(10)
    headings = [
        "Defense",
        "Attack of the paper",
        "Reports",
        "10",
        "100",
        "SLC-AUC",
        "Source after, %",
        "Target before, %",
    ]
    assert [column.heading for column in view.columns] == headings
    texts = [[column.text(row) for column in view.columns] for row in view.rows]
    assert [line[:5] for line in texts] == [
        ["none", "theirs", "best test", "70.0", "70.0"],
        ["scratch", "theirs", "best test", "50.0", "50.0"],
        ["ntp", "kept (mask kept)", "last", "30.0", "30.0"],
    ]
    assert [line[5].split()[0] for line in texts] == [f"{area:+.2f}", "0.00", f"{-area:+.2f}"]


def test_a_report_of_protocols_alone_shows_them_and_claims_no_verdict() -> None:
    files = report_files(Tables.of(results(), paper_suite()), paper_suite(), {})
    page, text = files["index.html"].decode(), files["leaderboard.md"].decode()
    assert "By the papers&#39; own protocols" in page and "No row has a number yet." not in page
    assert "a to b: only the papers' own protocols have run, which have no verdict." in text
    assert "| ntp | kept (mask kept) | last | 30.0 | 30.0 |" in text and "Gates" not in text.split("## How to read")[0]
    assert protocols(Reproduction.of([], paper_suite()), TASK) == []
