"""Tests of benchmarks/: that they run, not how fast."""
