"""Tests of `alerts/`."""
