"""Fine-tuning with a multiple of the budget: does a defense prevent adaptation, or does it only delay it?

No paper of its own. It is `finetune`, hyper-parameter for hyper-parameter, with `factor` times the optimizer steps and
samples, and with its schedule stretched over all of them. Against scratch with the plain budget it is no fair fight,
so its row bounds what patience buys an attacker.

Deviations: none; the strategies and what they change in NTLBench's are told in `finetune`.
"""

from ntbench.method import Field, register

from .finetune import FineTune


@register
class Longer(FineTune):
    """Train on the labelled target samples for longer than everybody else."""

    name = "longer"
    paper = ""
    quick = {"factor": 2}

    factor: int = Field(default=10, ge=2)

    @property
    def times(self) -> int:
        """Return how many times the budget of a suite the attack takes, in steps and samples."""
        return self.factor
