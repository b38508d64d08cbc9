"""What does a scrape of the exporters cost, and a cycle?"""
