"""The defender's watch over the source task, on its own validation data."""

import copy

from torch import Tensor, nn

from ntbench.method import Context, UnusableError, correct

TOLERANCE = 0.015
"""How much source accuracy may go, so that the mean drop on unseen images stays within two points."""


class SourceGuard:
    """Keeps the last state whose drop, the mean over images of right before less right now, is within `tolerance`.

    Both are taken on the same validation images of the source. A defense looks in the order of rising strength.
    """

    def __init__(
        self, model: nn.Module, ctx: Context, tolerance: float, remedy: str = "fewer steps or a lower rate"
    ) -> None:
        """Measure where the model starts; `remedy` is what a defender can change who loses too much."""
        assert ctx.source_val is not None
        self._model, self._data = model, ctx.source_val
        self._clean = correct(model, ctx.source_val).double()
        self._tolerance, self._remedy = tolerance, remedy
        self._least = 1.0
        self._held: dict[str, Tensor] | None = None

    def drop(self) -> float:
        """Return the paired mean drop of the model as it is now; negative where it gained."""
        return float((self._clean - correct(self._model, self._data).double()).mean())

    def holds(self) -> bool:
        """Return whether the model is within tolerance now, and keep its state if so."""
        found = self.drop()
        self._least = min(self._least, found)
        # Sums of shares of images are not exact.
        within = found <= self._tolerance + 1e-9
        if within:
            self._held = copy.deepcopy(self._model.state_dict())
        return within

    def restore(self) -> None:
        """Load the state kept last; UnusableError where the model never was within tolerance."""
        if self._held is None:
            start = float(self._clean.mean())
            raise UnusableError(
                f"source accuracy on validation data was {start - self._least:.3f} at best, {start:.3f} before: a drop "
                f"of {self._least:.3f} where tolerance={self._tolerance:g}; what keeps it: {self._remedy}, "
                f"or tolerance={self._least:.3f}"
            )
        self._model.load_state_dict(self._held)

    def insist(self) -> None:
        """Leave the model as it is now; UnusableError where it is not within tolerance."""
        self.holds()
        self.restore()
