"""Attempts to get past the decision: a corpus, played to a real broker, and an oracle that has none of its code."""
