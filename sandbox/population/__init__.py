"""A synthetic population: invented people with plausible charts, the same for the same seed."""

from sandbox.population.build import build

__all__ = ["build"]
