"""Backups of the store: what goes into one, and the file that it goes into."""

from broker.backups.archive import ArchiveWriter, Entry, read_entries, read_head
from broker.backups.selection import is_kept, restored

__all__ = ["ArchiveWriter", "Entry", "is_kept", "read_entries", "read_head", "restored"]
