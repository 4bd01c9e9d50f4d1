"""What `import ntbench` offers in a notebook: finished runs as frames and figures.

Here enters what a person types between two cells of a notebook; numbers, words and drawings come from below.
"""
