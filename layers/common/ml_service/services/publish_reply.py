"""Sending the reply that a closed job holds: at least once, and marked when it is out."""

from datetime import datetime

from ml_service.domain.jobs import Job
from ml_service.ports import JobStore, ReplyTopic


def publish_reply(job: Job, *, jobs: JobStore, topic: ReplyTopic, now: datetime) -> Job:
    """Publish a closed job's stored reply, unless that is done; returns the present record.

    A crash between the two steps repeats the reply, under the same id.
    """
    if job.published_at is not None:
        return job
    topic.publish(job.reply)
    published = job.mark_published(now)
    jobs.save(published)
    return published
