from typing import Any

import boards
import pandas as pd
import pytest

from ntbench.measure.tables import COVERAGE
from ntbench.report.sentences import absent, brackets, defended, failures, gate_line, ranking, sentence, tuned
from ntbench.report.views import headline

TASK = boards.tasks(1)[0]


def table(seeds: int = 5) -> pd.DataFrame:
    found = boards.board(("best", "second", "third"), 1, seeds)
    return found.assign(gates="", **{f"gate_{gate}": True for gate in boards.GATES})


def change(found: pd.DataFrame, defense: str, **values: Any) -> pd.DataFrame:
    found = found.copy()
    for name, value in values.items():
        found.loc[found["defense"] == defense, name] = value
    return found


def test_the_sentence_says_what_leaks_least_how_much_and_how_sure() -> None:
    leak = {"leak": 0.031, "leak_low": -0.02, "leak_high": 0.081, "verdict": "holds"}
    said = sentence(change(table(), "best", **leak), TASK)
    assert said.startswith(
        "photo to sketch: best leaks least, 0.03 [-0.02, 0.08] of what the unprotected release adds (95% interval): "
        "it holds."
    )
    assert "second may leak as little." in said


def test_an_open_row_says_what_would_decide() -> None:
    said = sentence(change(table(), "best", verdict="open", reason="more seeds would decide"), TASK)
    assert "open, more seeds would decide." in said


def test_under_five_seeds_it_is_a_range() -> None:
    assert "(range of 3 seeds)" in sentence(table(3), TASK) and "(range of 1 seed)" in sentence(table(1), TASK)
    rows = ranking(table(3), TASK)
    assert brackets(rows) == "Brackets: range of 3 seeds, no interval."
    assert brackets(ranking(table(), TASK)) == "Brackets: 95% intervals."


def test_a_board_says_which_rows_were_tuned_and_with_how_many_trials() -> None:
    assert tuned(ranking(table(), TASK)) == ""
    some = change(change(table(), "best", trials=8), "magnitude", trials=8)
    said = tuned(ranking(some, TASK))
    assert said == "Tuned for the task: best and magnitude in 8 trials; second and third not."
    every = table().assign(trials=8.0)
    every.loc[every["defense"].isin(["none", "scratch"]), "trials"] = float("nan")
    assert tuned(ranking(every, TASK)) == "Tuned for the task: best, second, third and magnitude in 8 trials."
    assert headline(some, TASK).note.endswith(f" {said}")


def test_a_control_that_leaks_less_is_named() -> None:
    said = sentence(change(table(), "magnitude", leak=-0.2), TASK)
    assert said.endswith("The control magnitude leaks less, -0.20.")


def test_without_transfer_there_is_nothing_to_protect() -> None:
    assert "nothing to protect" in sentence(table().assign(gate_transfers=False, leak=float("nan")), TASK)


def test_without_undefended_weights_what_is_added_is_told_and_what_is_missing() -> None:
    missing = "no undefended weights are given, so that there is neither leak nor verdict"
    numbers: dict[str, Any] = {
        "uplift": 0.042,
        "uplift_low": 0.03,
        "uplift_high": 0.05,
        "speedup": 1.5,
        "speedup_bound": "",
    }
    told: dict[str, Any] = {
        "gates": f"transfers: {missing}; name them as `undefended`",
        "gate_transfers": False,
        "leak": float("nan"),
    }
    found = table(3).assign(**numbers, **told, interval="range over attack seeds alone", verdict="none")
    found = found[found["defense"].isin(["best", "scratch"])]
    assert sentence(found, TASK) == (
        "photo to sketch: best adds +4.2 [+3.0, +5.0] points for an attacker over starting without it (range of 3 "
        f"seeds over attack seeds alone), speed-up 1.50. N{missing[1:]}."
    )
    assert brackets(ranking(found, TASK)) == (
        "Brackets: range of 3 seeds, no interval; of best over attack seeds alone, on one file each."
    )
    assert "transfers: no undefended weights are given" in gate_line(ranking(found, TASK))


def test_one_file_is_told_with_its_leak() -> None:
    said = sentence(change(table(), "best", interval="95% over attack seeds alone", verdict="holds"), TASK)
    assert "(95% interval over attack seeds alone): it holds." in said


def test_a_run_that_has_just_begun_claims_nothing() -> None:
    found = table().assign(gate_transfers=False, leak=float("nan"), uplift=float("nan"), seeds=0, interval="range")
    assert sentence(found, TASK).endswith("no number yet, too few cells have run.")
    assert brackets(ranking(found, TASK)) == ""


def test_without_a_verdict_the_gate_is_named() -> None:
    gates: dict[str, Any] = {
        "verdict": "none",
        "gates": "converged: it still gained; raise `horizon`",
        "gate_converged": False,
    }
    said = sentence(table().assign(**gates), TASK)
    assert "but there is no verdict. Converged: it still gained; raise `horizon`." in said


@pytest.mark.parametrize("kept", [["scratch"], ["none", "scratch"]])
def test_a_board_without_defenses_says_so(kept: list[str]) -> None:
    found = table()
    said = sentence(found[found["defense"].isin(kept)], TASK)
    assert said.endswith(("only baselines have run.", "only controls have run."))


def test_baselines_come_last() -> None:
    assert [row["defense"] for row in ranking(table(), TASK)][-1] == "scratch"


def test_gates_are_on_one_line_with_what_would_mend_them() -> None:
    assert gate_line(ranking(table(), TASK)).startswith("Gates: all pass")
    gates: dict[str, Any] = {"gate_inside": False, "gates": "inside: adam wins with the highest rate; add a higher one"}
    said = gate_line(ranking(change(table(), "best", **gates), TASK))
    assert said == (
        "Gates: converged, horizon, transfers and complete pass. Not passed: inside: adam wins with the highest rate; "
        "add a higher one (best)."
    )
    every = gate_line(ranking(table().assign(**gates), TASK))
    assert every.endswith("(every row).")


def test_failed_gates_are_told_apart() -> None:
    row: dict[str, Any] = {f"gate_{gate}": gate not in ("horizon", "inside", "complete") for gate in boards.GATES}
    row["gates"] = "horizon: too short; raise it; inside: an edge; add one"
    found = [("horizon", "too short; raise it"), ("inside", "an edge; add one"), ("complete", "no reason given")]
    assert failures(row) == found


def test_a_defense_that_no_attack_could_face_is_told_with_the_reason() -> None:
    rows = [
        (TASK.name, "target", "best", "dense", "x", 0, 0, 3, "it is for others\x1b"),
        (TASK.name, "target", "second", "dense", "x", 6, 1, 0, ""),
        (TASK.name, "target", "second", "keep", "x", 0, 0, 3, "no zeros"),
        ("another-task", "target", "second", "dense", "x", 0, 0, 3, "it is far"),
    ]
    coverage = pd.DataFrame(rows, columns=list(COVERAGE))
    assert absent(coverage, TASK) == "best has no row: it is for others"
    assert absent(coverage[coverage["defense"] == "second"], TASK) == ""


@pytest.mark.parametrize(("given", "said"), [(None, ""), ((), "no domain"), (("syn",), "syn"), (("a", "b"), "a and b")])
def test_which_domains_a_defender_is_given(given: tuple[str, ...] | None, said: str) -> None:
    assert defended(TASK.model_copy(update={"defended": given})) == said
