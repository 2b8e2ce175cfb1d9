"""Bulk Data exports through the broker: kick-off, status, files, cancelling; and the end of abandoned ones."""
