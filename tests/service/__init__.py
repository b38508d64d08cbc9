"""Tests of `service/`, against a real Postgres."""
