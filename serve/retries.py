"""How often a job is tried that workers die of."""

from rayramid.serve.store import Store
from rayramid.serve.wire import VideoError

# Attempts that die at the same unit before the job is given up.
TRIES = 4


def may_go_on(store: Store, job_id: str) -> bool:
    """Whether a job without a worker waits for another one; blocks. One that is given up has ended then."""
    control = store.control(job_id)
    if control.ended or not store.has(job_id):
        return False
    if control.attempts == 0 or store.tries(job_id, control.attempts) < TRIES:
        return True
    message = f"The server failed {TRIES} times at the same place of this video."
    store.end(job_id, VideoError(code="server_error", message=message))
    return False
