"""What ends a review: nobody answers, or the answer is none."""

from __future__ import annotations


class ReviewError(RuntimeError):
    """A question to Prometheus has no usable answer. The message names the URL, what is wrong, and what may help."""
