"""The built-in defenses, one a file; the registry finds them by their file names."""
