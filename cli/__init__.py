"""The one front door: `slo generate|check|list|explain|diff|import`."""
