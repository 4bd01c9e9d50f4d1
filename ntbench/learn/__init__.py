"""How networks learn: architectures and their weights, the fit loop, schedules, scores, and the meter of costs.

Here enters what every method trains with; it knows of no defense, no attack and no suite.
"""
