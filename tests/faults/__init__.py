"""Faults on real nodes, one file each, and what must hold during and after them. See README.md."""
