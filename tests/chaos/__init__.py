"""The proofs with real processes: brokers that are killed at every step of a refresh, and a herd of callers."""
