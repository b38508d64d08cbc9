"""What a real Kubernetes does, and what of it metrics show."""
