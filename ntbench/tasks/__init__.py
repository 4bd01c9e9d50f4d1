"""What is learnt: domains at one image size as fixed splits, and what an attacker gets of them.

Here enter splits, batches and objectives; no network, no training, no scores of a grid.
"""
