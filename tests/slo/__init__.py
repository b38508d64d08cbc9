"""Tests of the definitions and of what they mean."""
