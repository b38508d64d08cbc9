"""Tests of the command `slo`."""
