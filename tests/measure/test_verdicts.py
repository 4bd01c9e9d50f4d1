import numpy as np
import pytest

from ntbench.measure.gates import Failure
from ntbench.measure.intervals import UNKNOWN, Interval
from ntbench.measure.verdicts import Lost, Numbers, verdict

SURE = Numbers(Interval(0.02, -0.01, 0.05), Interval(1.0, 0.9, 1.1), Interval(0.005, 0.0, 0.01), 5)


@pytest.mark.parametrize(
    ("changes", "expected", "said"),
    [
        ({}, "holds", ""),
        ({"leak": Interval(0.1, 0.1, 0.1), "speedup": Interval(1.25, 1.25, 1.25)}, "holds", ""),
        ({"leak": Interval(0.3, 0.2, 0.4)}, "leaks", "the leak is above 0.1 (0.20 to 0.40)"),
        ({"speedup": Interval(2, 1.5, 3)}, "leaks", "the speed-up is above 1.25 (1.50 to 3.00)"),
        ({"leak": Interval(0.1, 0.0, 0.2)}, "open", "the interval of the leak (0.00 to 0.20) spans 0.1"),
        ({"speedup": Interval(1.2, 1.0, 1.4)}, "open", "the interval of the speed-up"),
        ({"speedup": UNKNOWN}, "open", "the speed-up has no interval"),
        ({"drop": Interval(0.01, 0.0, 0.03)}, "open", "the source drop spans 2 points (0.0 to 3.0)"),
        ({"drop": UNKNOWN}, "open", "the source drop"),
        ({"seeds": 3}, "open", "fewer than five seeds (3); run 2 more"),
        ({"seeds": 3, "leak": Interval(0.5, 0.4, 0.6)}, "open", "fewer than five seeds"),
        ({"drop": Interval(0.05, 0.03, 0.07)}, "none", "unusable: source accuracy drops by 5.0 points (3.0 to 7.0)"),
    ],
)
def test_verdicts(changes: dict[str, object], expected: str, said: str) -> None:
    found, reason = verdict(SURE._replace(**changes), [], 0.02)  # type: ignore[arg-type]
    assert found == expected
    assert reason.startswith(said)


def test_an_unusable_row_tells_what_it_reached_and_what_keeps_the_source() -> None:
    lost, drop = Lost(best=0.912), Interval(0.05, 0.03, 0.07)
    told = "unusable: source accuracy drops by 5.0 points (3.0 to 7.0), above 2, to 91.2% at best; "
    found = SURE._replace(drop=drop, lost=lost)
    assert verdict(found, [], 0.02) == ("none", f"{told}tune the defense on its own validation data")
    kept = lost._replace(kept={"sparsity": 0.9, "lr": 0.001})
    said = "a trial kept it with sparsity = 0.9, lr = 0.001"
    assert verdict(found._replace(lost=kept), [], 0.02) == ("none", f"{told}{said}")
    refused = kept._replace(said="source accuracy on validation data was 0.90 at best")
    failures = [Failure("complete", "6 failed; run them again")]
    expected = f"unusable: source accuracy on validation data was 0.90 at best; {said}"
    assert verdict(SURE._replace(drop=UNKNOWN, lost=refused), failures, 0.02) == ("none", expected)


def test_a_gate_that_fails_leaves_none() -> None:
    failures = [Failure("inside", "the edge; add one"), Failure("inside", "the edge; add one")]
    assert verdict(SURE, failures, 0.02) == ("none", "inside: the edge; add one")


def test_nothing_known_is_not_held() -> None:
    nothing = Numbers(UNKNOWN, UNKNOWN, UNKNOWN, 5)
    assert verdict(nothing, [], 0.02)[0] == "open"
    assert np.isnan(UNKNOWN.point)
