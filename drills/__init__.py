"""Drills: run the platform from outside, as a user or a fault would.

harness     starts real servers on free loopback ports and stops every one of them; tests use it as well
demo        breaks a running service and shows the page that follows (`make demo`)
load        many cheap requests, what became of each, and how long it took (`python -m drills.load`)
faults      hurts a running service under load in every known way (`make drill`)
incidents   every failure that we know, from the fault to the page (`make test-e2e`)
verdict     judges what became of every redemption against the ledger
"""
