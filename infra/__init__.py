"""The platform as code belongs here: Kubernetes and CloudFormation, from the same values as the SLOs."""
