"""Every route gets what nobody would send, and the broker stays polite and silent about secrets."""
