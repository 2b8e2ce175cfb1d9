"""Measurements. A claim about speed is a ratio to a baseline of the same run; timing decides no test."""
