"""Everything real at once."""
