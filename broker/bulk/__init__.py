"""Bulk Data exports under way: each is a sealed record, so every replica can go on with it, also after a restart."""

from broker.bulk.file_lists import FileLists
from broker.bulk.job import Job, Listing, new_job_id
from broker.bulk.jobs import Due, Jobs, StoredJob
from broker.bulk.manifest import ListedFile, Manifest, parse_manifest, render_manifest

__all__ = [
    "Due",
    "FileLists",
    "Job",
    "Jobs",
    "ListedFile",
    "Listing",
    "Manifest",
    "StoredJob",
    "new_job_id",
    "parse_manifest",
    "render_manifest",
]
