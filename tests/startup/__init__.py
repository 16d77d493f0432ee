"""Time to the first acknowledged record, and memory at rest."""
