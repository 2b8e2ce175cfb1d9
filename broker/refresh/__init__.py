"""Keeps grants current. One refresh of a grant at a time, over all replicas; callers only wait."""
