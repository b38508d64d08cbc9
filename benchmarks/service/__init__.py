"""How many redemptions, how fast, and what happens beyond that."""
