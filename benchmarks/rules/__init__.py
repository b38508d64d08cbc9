"""Claim: in each evaluation cycle our rules touch at most a tenth of the samples that Sloth's touch."""
