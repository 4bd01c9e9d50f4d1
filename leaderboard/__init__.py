"""The published rows: their schema and their rendering."""
