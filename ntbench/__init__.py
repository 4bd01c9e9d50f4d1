"""ntbench: how much does a non-transferable model really cost its attacker, compared with training from scratch?"""

__version__ = "0.1.0"
