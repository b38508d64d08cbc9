"""Tests of the alarms in CloudWatch."""
