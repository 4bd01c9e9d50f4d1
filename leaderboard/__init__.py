"""The published boards: what their files hold, and how they are written, checked, recomputed and rendered.

Here enters what anybody needs who trusts no file; how numbers are made of cells belongs in `ntbench.measure`.
"""
