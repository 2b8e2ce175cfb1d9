"""Redis, and nothing about what is kept in it: finding a server, connecting to it, running scripts on it.

The names live in `connection` and `embedded`; a production process that is given a URL never starts a server.
"""
