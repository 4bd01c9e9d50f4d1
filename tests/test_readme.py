"""The README's example is real: it is extracted, checked and short."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ntbench.leaderboard.checks import Check, checks_of
from ntbench.leaderboard.published import Board
from ntbench.leaderboard.reproductions import read_all

from ntbench.report.display import Record, factor, number, percent, points, records, with_interval, with_spread

ROOT = Path(__file__).parent.parent


def in_one_line() -> str:
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def check_of_quick(way: str, attacks: int) -> Check:
    board = Board.read(ROOT / "leaderboard/results/quick")
    (check,) = (check for check in checks_of(board, ROOT / "leaderboard") if check.way.folder == way)
    assert len(check.further.suite.planned) == attacks
    return check


def dense(table: pd.DataFrame) -> dict[str, Record]:
    rows = records(table[(table["track"] == "target") & (table["mask"] == "dense")])
    return {row["defense"]: row for row in rows}


def alike(way: str) -> dict[str, Record]:
    """Return the rows of quick, five seeds at 8 T90, under the attacks of a check of it alone."""
    return dense(check_of_quick(way, attacks=8).here)


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


def test_what_it_says_of_more_seeds_is_what_the_check_shows() -> None:
    text = in_one_line()
    rows = {name: published(name, "checks/seeds") for name in ("sophon", "ntl", "ntp")}
    leaks = {name: with_interval(row, "leak", signed=False) for name, row in rows.items()}
    assert f"SOPHON holds ({leaks['sophon']}), NTL leaks ({leaks['ntl']}), and so does NTP ({leaks['ntp']})" in text
    assert {row["seeds"] for row in rows.values()} == {15}
    five = alike("seeds")
    said = f"SOPHON holds ({with_interval(five['sophon'], 'leak', signed=False)}) and that NTP leaks by its speed-up of"
    assert f"five already say that {said} {factor(five['ntp']['speedup'])}." in text
    assert five["sophon"]["leak_high"] <= 0.1 and five["sophon"]["speedup_high"] <= 1.25
    assert five["ntp"]["speedup_low"] > 1.25 and five["ntl"]["leak_low"] <= 0.1 < five["ntl"]["leak_high"]
    assert rows["sophon"]["leak_high"] <= 0.1 and rows["sophon"]["speedup_high"] <= 1.25
    assert min(rows["ntl"]["leak_low"], rows["ntp"]["leak_low"]) > 0.1


def test_what_it_says_of_further_attacks_is_what_the_check_shows() -> None:
    text, check = in_one_line(), check_of_quick("attacks", attacks=9)
    here, there = dense(check.here), dense(check.there)
    assert "Nine further attacks, which shrink with Muon or move" in text
    said = re.search(r"change no leak by more than (\d\.\d+),", text)
    assert said and max(abs(here[name]["leak"] - there[name]["leak"]) for name in here) <= float(said[1])
    leaks = {name: with_interval(there[name], "leak", signed=False) for name in ("sophon", "ntl", "ntp")}
    assert f"SOPHON holds ({leaks['sophon']}), NTL leaks ({leaks['ntl']})," in text
    assert f"NTP does by its speed-up of {factor(there['ntp']['speedup'])} ({leaks['ntp']})." in text
    assert there["sophon"]["leak_high"] <= 0.1 and there["sophon"]["speedup_high"] <= 1.25
    assert there["ntl"]["leak_low"] > 0.1 >= there["ntp"]["leak_low"] and there["ntp"]["speedup_low"] > 1.25
    gained = re.search(r"had not converged under them: (\S+) points over the second half", text)
    assert gained and f"still gained {gained[1]} points over the second half at 60 samples" in there["none"]["gates"]


def test_what_it_advises_is_what_the_rows_say() -> None:
    text = in_one_line()
    rows = published("sophon"), published("ntp")
    slc = [number(row[name], signed=True) for name in ("paper_slc", "slc") for row in rows]
    said = "of {} and NTP one of {}; under the strongest attack, against scratch at its best, they have {} and {}."
    assert said.format(*slc) in text
    fixed = [(row["paper_attack"], row["paper_mask"]) for row in rows]
    assert fixed == [("momentum 0.001", "dense"), ("adam 0.003", "keep")]
    ablated, whole = (
        published(name, file="ablation/{}/digits-digits_m.json") for name in ("sophon, 10 loops", "sophon")
    )
    assert f"leaves {number(ablated['leak'])} in place of {number(whole['leak'])}." in text
    unnamed = published("sophon", file="defended/{}/digits_to_digits_m_syn_defended.json")
    assert f"that nobody named leaks {number(unnamed['leak'])}." in text
    pruned = published("magnitude"), published("magnitude", file=GENERATION)
    assert "leaves {} on `quick` and {} on `generation`.".format(*(number(row["leak"]) for row in pruned)) in text


def test_what_it_says_of_a_longer_horizon_is_what_the_check_shows() -> None:
    text = in_one_line()
    names = ("sophon", "ntl", "ntp", "magnitude", "none")
    here, there = alike("horizon"), {name: published(name, "checks/horizon") for name in names}
    said = re.search(r"moves no leak by more than (\d\.\d+), though with 20 samples training from scratch still", text)
    gained = re.search(r"scratch still gains (\S+) points over the second half of it", text)
    assert gained and f"still gained {gained[1]} points over the second half at 20 samples" in there["none"]["gates"]
    assert said and max(abs(here[name]["leak"] - there[name]["leak"]) for name in names) <= float(said[1])
    leaks = {name: with_interval(there[name], "leak", signed=False) for name in names}
    most = factor(there["sophon"]["speedup_high"])
    assert f"SOPHON does by its speed-up, up to {most}, though not by its leak ({leaks['sophon']})" in text
    assert f"by its speed-up of {factor(there['ntp']['speedup'])} ({leaks['ntp']})" in text
    assert f"NTL stays open ({leaks['ntl']})" in text
    assert there["sophon"]["leak_high"] <= 0.1 and there["sophon"]["speedup_high"] > 1.25
    assert there["ntp"]["speedup_low"] > 1.25 and there["ntl"]["leak_low"] <= 0.1 < there["ntl"]["leak_high"]


GENERATION = "generation/{}/digits-letters.json"
GENERATION_MNIST = "generation/{}/mnist-letters.json"
RELEASES = ("sophon, log", "sophon, mse", "ntl_generation", "none", "continued, 2020 steps")
PAIRS = {"### Digits to capital letters": GENERATION, "### MNIST to capital letters": GENERATION_MNIST}


@pytest.mark.parametrize("title", PAIRS)
def test_what_the_docs_say_of_generation_are_published_rows(title: str) -> None:
    text = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")
    part = re.split(r"^##", text.partition(title)[2], flags=re.M)[0]
    lines = re.findall(r"^\| ([\w, ]+) \| (-?[\d.]+ \[.*\]) \| (.*) \| (.*) \| (.*) \| (.*) \|$", part, re.M)
    board = ROOT / "leaderboard" / "results" / "generation"
    rows = {folder.name: published(folder.name, file=PAIRS[title]) for folder in board.glob("*/")}
    assert {name for name, *_ in lines} == {name for name, row in rows.items() if row["seeds"] == 5} - {"scratch"}
    for defense, *told in lines:
        row = rows[defense]
        shown = points(row["compute_uplift"], signed=True), factor(row["speedup"]), points(row["drop"])
        assert told == [with_interval(row, "leak", signed=False), *shown, with_spread(row, "frechet")]
        gained = re.search(r"still gains ([\d.]+) points", " ".join(part.split()))
        assert gained and f"still gained {gained[1]} points" in row["gates"] and row["verdict"] == "none"
    page = (ROOT / "leaderboard" / "README.md").read_text(encoding="utf-8").replace("\\", "")
    said = re.search(r"with 10 samples Spearman .*? points; with 40 samples .*? points", " ".join(part.split()))
    assert said and said[0] in page


def test_what_the_docs_say_of_a_row_that_lost_its_source() -> None:
    row = published("magnitude", file=GENERATION_MNIST)
    text = " ".join((ROOT / "docs" / "generation.md").read_text(encoding="utf-8").split())
    file = json.loads((ROOT / "leaderboard/results" / GENERATION_MNIST.format("magnitude")).read_text(encoding="utf-8"))
    lost = [kept["status"] for kept in file["protections"].values() if kept["status"] != "ok"]
    assert row["verdict"] == "none" and row["reason"].startswith("unusable: ") and {*lost} == {"unusable"}
    assert f"loses the source at {len(lost)} of 5 seeds" in text


def test_both_pairs_of_generation_order_releases_alike() -> None:
    leaks = [
        {name: published(name, file=file)["leak"] for name in sorted(RELEASES)}
        for file in (GENERATION, GENERATION_MNIST)
    ]
    assert sorted(leaks[0], key=leaks[0].__getitem__) == sorted(leaks[1], key=leaks[1].__getitem__)


def test_what_it_says_of_generation_are_published_rows() -> None:
    text = in_one_line()
    log, mse, magnitude, longer = (
        with_interval(published(name, file=GENERATION), "leak", signed=False)
        for name in ("sophon, log", "sophon, mse", "magnitude", "continued, 2020 steps")
    )
    there = [
        with_interval(published(name, file=GENERATION_MNIST), "leak", signed=False)
        for name in ("sophon, log", "sophon, mse", "continued, 2020 steps")
    ]
    assert f"leaves {log} and {mse} of what the unprotected model of digits adds, {there[0]} and {there[1]} of" in text
    assert f"that alone leaves {longer} and {there[2]}," in text
    assert f"Magnitude pruning raises it to {magnitude} on digits" in text


def test_what_it_says_of_domains_that_are_defended_are_published_rows() -> None:
    text = in_one_line()
    told = {
        "Defended against the target SOPHON leaves {} and NTL {};": "defended",
        "against the target and synthetic digits at once {} and {};": "defended_with_syn",
        "against synthetic digits alone {} and {}, which both leak": "syn_defended",
    }
    for words, task in told.items():
        file = "defended/{}/digits_to_digits_m_" + task + ".json"
        rows = [published(name, file=file) for name in ("sophon", "ntl")]
        assert words.format(*(with_interval(row, "leak", signed=False) for row in rows)) in text
        assert {row["seeds"] for row in rows} == {5} and not any(row["gates"] for row in rows)
        assert (task == "syn_defended") == all(row["verdict"] == "leaks" for row in rows)
        longer = [published(name, "checks/horizon", file) for name in ("sophon", "ntl")]
        assert [row["leak_low"] > 0.1 for row in longer] == [row["verdict"] == "leaks" for row in rows]
        assert "At 16 T90, under the four attacks that win there, the same rows leak and the same stay open." in text


def test_what_it_says_of_ablations_are_published_rows() -> None:
    text = in_one_line()
    told = {
        "SOPHON leaves {} as it is": "sophon",
        "{} with 10 loops in place of 40": "sophon, 10 loops",
        "{} with one inner step in place of 25": "sophon, 1 inner steps",
        "{} where every simulated attacker draws its head anew": "sophon, reinit 1",
        "NTP leaves {} as it is": "ntp",
        "{} without its Fisher term": "ntp, strength 0",
        "{} at half its weights pruned": "ntp, sparsity 0.5",
        "{} with a mask that is set at the end alone": "ntp, mask at the end",
    }
    for words, name in told.items():
        row = published(name, file="ablation/{}/digits-digits_m.json")
        assert words.format(with_interval(row, "leak", signed=False)) in text and row["seeds"] == 3


def test_what_it_says_of_sophons_protocol_is_what_the_published_runs_show() -> None:
    text = in_one_line()
    found = read_all(ROOT / "leaderboard" / "reproduced")["paper_sophon"]
    task, rows = found.suite.tasks[0].name, ("sophon-ice", "scratch", "none")
    under = [found.under(task, f"20 passes of {name} 0.0001") for name in ("momentum", "adam")]
    theirs, adam = ([percent(reached[row].point) for row in rows] for reached in under)
    assert found.suite.paper.attack == "20 passes of momentum 0.0001"
    assert {run.seed for run in found.runs} == {0, 1, 2} and all(run.status == "ok" for run in found.runs)
    told = "its release reaches {}% on the target, training from scratch {}% and the unprotected model {}%."
    assert told.format(*theirs) in text and "undoes that: {}%, {}% and {}%.".format(*adam) in text


def published(defense: str, place: str = "results", file: str = "quick/{}/digits-digits_m.json") -> dict[str, Any]:
    """Return the dense row of a defense on the board of `quick` or on its check, or on another board."""
    path = ROOT / "leaderboard" / place / file.format(defense)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    found: dict[str, Any] = next(r for r in rows if r["track"] == "target" and r["mask"] == "dense")
    return found
