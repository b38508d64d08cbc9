"""Claim: `slo generate` takes under a second, and rules for 1,000 SLOs take no longer than Sloth takes."""
