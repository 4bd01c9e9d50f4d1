"""The frozen suites, one TOML file each."""
