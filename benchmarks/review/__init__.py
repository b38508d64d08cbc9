"""What a review of many SLOs costs, in time and in questions."""
