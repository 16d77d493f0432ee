"""The checkers checked: each must find the fault it is there for."""
