from ntbench.measure import ranking, tables
from ntbench.measure.curves import Selection
from ntbench.report.display import COLUMNS
from ntbench.report.glossary import COVERAGE, LEADERBOARD, RESULTS, RULES


def test_every_column_of_every_file_is_explained_and_nothing_else() -> None:
    assert set(LEADERBOARD) == set(ranking.COLUMNS)
    assert set(RESULTS) == set(tables.COLUMNS)
    assert set(COVERAGE) == set(tables.COVERAGE)


def test_every_shown_column_is_explained() -> None:
    assert {column.field for column in COLUMNS.values()} <= set(LEADERBOARD)


def test_every_selection_rule_is_explained() -> None:
    assert set(RULES) == set(Selection.__args__)  # type: ignore[attr-defined]
