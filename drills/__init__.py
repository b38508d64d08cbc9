"""Drills: run the platform from outside, as a user or a fault would.

harness     starts real servers on free loopback ports and stops every one of them; tests use it as well
demo        breaks a running service and shows the page that follows (`make demo`)
"""
