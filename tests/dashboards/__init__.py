"""Tests of `dashboards/`."""
