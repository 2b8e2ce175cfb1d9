"""Faults in the code that decides: `./run python -m tests.mutation`. A test fails for each, or a reason is written."""
