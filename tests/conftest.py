"""What holds for all tests."""

from hypothesis import settings

# How long an example takes is up to the machine; a test that must be fast says so in benchmarks/.
settings.register_profile("unhurried")
settings.load_profile("unhurried")
