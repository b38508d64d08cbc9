"""Claim: over a month with a flash sale, the budget that our rules record is the truth counted from the events."""
