"""The built-in attacks, one a file; the registry finds them by their file names."""
