"""Backups of the store: what goes into one, and the file that it goes into."""

from broker.backups.archive import ArchiveWriter, Entry, Kind, read_entries, read_head
from broker.backups.domain_keys import merged
from broker.backups.selection import kind_of, merges, restored

__all__ = ["ArchiveWriter", "Entry", "Kind", "kind_of", "merged", "merges", "read_entries", "read_head", "restored"]
