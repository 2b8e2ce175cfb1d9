"""Backups of the store: what goes into one, and the file that it goes into."""

from broker.backups.archive import ArchiveWriter, Entry, Kind, read_entries, read_head
from broker.backups.selection import kind_of, merges, restored

__all__ = ["ArchiveWriter", "Entry", "Kind", "kind_of", "merges", "read_entries", "read_head", "restored"]
