"""Handing a finished video on to be converted: at least once, and marked when it is done."""

from dataclasses import dataclass

from ml_service.domain.errors import HandOffFailedError
from ml_service.domain.hand_offs import HandOff, HandOffState, make_conversion_messages
from ml_service.domain.jobs import Job
from ml_service.ports import ConversionQueues, JobStore, MediaStore


@dataclass(frozen=True)
class HandOffVideo:
    """Copies a video where its message wants it, then asks for its conversion."""

    jobs: JobStore
    media: MediaStore
    queues: ConversionQueues

    def hand_off(self, job: Job, *, main_key: str | None) -> Job:
        """Hand a job's video on, unless that is done; returns the present record.

        A crash at any point repeats copy and messages, so the receiver may see them twice.
        """
        if job.hand_off is None or not job.needs_hand_off:
            return job
        try:
            state = self._hand_off(job.hand_off, main_key)
        except HandOffFailedError:
            state = HandOffState.FAILED
        job = job.end_hand_off(state)
        self.jobs.save(job)
        return job

    def _hand_off(self, hand_off: HandOff, main_key: str | None) -> HandOffState:
        if main_key is None:
            return HandOffState.FAILED
        self.media.copy_result(main_key, to_bucket=hand_off.bucket, to_key=hand_off.key)
        # After the copy: whoever reads a message finds the file.
        self.queues.send(hand_off.queue_arn, make_conversion_messages(hand_off))
        return HandOffState.DONE
