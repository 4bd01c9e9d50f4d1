"""Methods to begin with: what `ntbench new` writes, with `$name` and `$cls` for their names."""
