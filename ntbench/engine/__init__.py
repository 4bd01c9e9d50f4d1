"""From recipe to stored result: plan, grid, runner, bench, store, within limits.

Here enters what decides which cell runs when and where; what a number means is told in `measure`.
"""
