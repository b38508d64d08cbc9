"""The error-budget review belongs here: what is left of every budget, and why; terminal, HTML, a gate."""
