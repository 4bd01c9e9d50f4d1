"""Methods, domains and metrics to begin with: what `ntbench new` writes, with `$name` and `$cls` for their names."""
