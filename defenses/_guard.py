"""The defender's watch over the source task, on its own validation data."""

import copy

from torch import Tensor, nn

from ntbench.method import Context, accuracy


class SourceGuard:
    """Keeps the last weights whose source accuracy on validation data is within `tolerance` of the start."""

    def __init__(self, model: nn.Module, ctx: Context, tolerance: float) -> None:
        """Measure where the model starts."""
        assert ctx.source_val is not None
        self._model, self._data = model, ctx.source_val
        self.floor = accuracy(model, ctx.source_val) - tolerance
        self._best = 0.0
        self._held: dict[str, Tensor] | None = None

    def holds(self) -> bool:
        """Return whether the model is within tolerance now, and keep its weights if so."""
        found = accuracy(self._model, self._data)
        self._best = max(self._best, found)
        if found >= self.floor:
            self._held = copy.deepcopy(self._model.state_dict())
        return found >= self.floor

    def restore(self) -> None:
        """Load the weights kept last; FloatingPointError where the model never was within tolerance."""
        if self._held is None:
            raise FloatingPointError(
                f"source accuracy on validation data was {self._best:.3f} at best, below {self.floor:.3f}; "
                "train longer on source, at a lower rate, or allow a larger `tolerance`"
            )
        self._model.load_state_dict(self._held)

    def insist(self) -> None:
        """Leave the model as it is now; FloatingPointError where it is not within tolerance."""
        self.holds()
        self.restore()
