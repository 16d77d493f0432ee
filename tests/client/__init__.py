"""Our own client against real clusters whose nodes die."""
