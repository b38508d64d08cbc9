"""The harness and the drills."""
