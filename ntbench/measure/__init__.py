"""From stored results to numbers: curves, costs, worst cases, intervals, ranks and tables.

Here enter pure functions on arrays and data frames; no torch, and nothing that runs a cell.
"""
