"""Defenses for ntbench from outside, one a file."""
