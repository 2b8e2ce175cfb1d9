"""The broker as a SMART server, as ONC's public test kits ask it: one module for each of their groups.

Written from the specifications that the kits test, none of their text. Each docstring names the kit's own test.
"""
