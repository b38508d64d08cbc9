"""Every number that the documentation claims: one folder a claim, each with one command and its last figures.

Nothing here is a test with a stop-watch: `tests/benchmarks` only sees that the commands still run.
"""
