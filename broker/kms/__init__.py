"""Key-management services: what holds the key-encryption keys where this process does not. One module for each.

Nothing of it is on the way of a request: a domain's key is unwrapped once, and kept for a while.
"""
