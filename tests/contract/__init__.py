"""Tests that the rooms agree."""
