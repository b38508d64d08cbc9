"""Exporters belong here: RDS, Redis, EKS, SQS and the edge to Prometheus, with the AWS client in one file."""
