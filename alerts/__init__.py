"""Who is told, when, and where they look: pure renderers from compiled SLOs to artefacts."""
