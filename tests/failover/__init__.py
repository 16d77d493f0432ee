"""How long producers wait when a node dies."""
