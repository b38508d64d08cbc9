"""Tests of `exporters/`: moto's AWS, a real Valkey, a real Prometheus; fakes only for what moto lacks."""
