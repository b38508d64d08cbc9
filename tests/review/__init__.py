"""Tests of `review/`."""
