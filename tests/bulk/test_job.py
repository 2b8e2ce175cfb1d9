"""What is remembered of an export: its manifests, one after the other, and nothing that it does not need any more."""

from dataclasses import replace

from broker.bulk import Listing
from broker.bulk.job import Job
from tests.bulk.test_jobs import a_job
from tests.stage.clock import MovableClock

FIRST = Listing("https://ehr.example/status", 1, "a", 2, "{}")


def a_running_job() -> Job:
    return a_job(MovableClock()).accepted(FIRST.url)


def test_an_accepted_job_forgets_what_was_asked() -> None:
    job = a_running_job()

    assert (job.parameters, job.query, job.status_url) == ("", "", FIRST.url)


def test_manifests_follow_each_other_by_their_links() -> None:
    """(BD-17)"""
    job = a_running_job().with_listing(0, FIRST, "https://ehr.example/2")
    second = replace(FIRST, url="https://ehr.example/2", files=3)
    job = job.with_listing(1, second, None)

    assert job.listings == (FIRST, second)
    assert job.listed == 5
    assert job.with_listing(0, FIRST, second.url).listings == (FIRST, second), "the same link changes nothing"


def test_a_link_that_was_signed_anew_is_fetched_again_and_keeps_its_names() -> None:
    """(BD-17) (OR-08)"""
    second = replace(FIRST, url="https://ehr.example/2?sig=a", version=4)
    job = replace(a_running_job(), listings=(FIRST, second))

    again = job.with_listing(0, FIRST, "https://ehr.example/2?sig=b").listings[1]

    assert again == replace(second, url="https://ehr.example/2?sig=b", head="")
    assert not again.is_known


def test_a_manifest_that_has_become_the_last_one_is_the_last_one() -> None:
    job = replace(a_running_job(), listings=(FIRST, replace(FIRST, url="https://ehr.example/2")))

    assert job.with_listing(0, FIRST, None).listings == (FIRST,)


def test_links_in_a_circle_lead_nowhere_new() -> None:
    """(BD-17)"""
    second = replace(FIRST, url="https://ehr.example/2")
    job = replace(a_running_job(), listings=(FIRST, second))

    assert job.with_listing(1, second, FIRST.url).listings == (FIRST, second)
    assert job.with_listing(1, second, second.url).listings == (FIRST, second)


def test_a_job_is_loaded_as_it_was_dumped() -> None:
    job = replace(a_running_job().with_listing(0, FIRST, "https://ehr.example/2"), failure=(500, "{}"))

    assert Job.load(job.dump()) == job
    assert "ehr.example" not in repr(job)
