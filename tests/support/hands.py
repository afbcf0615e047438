"""Workers for a broker's tests that do what they are told, and nothing before."""

import asyncio

from rayramid.serve.broker import Broker
from rayramid.serve.job import Progress


class Workers:
    """Carries out attempts when told to; an attempt that is asked to leave does so at its next unit."""

    def __init__(self, store):
        self.store = store
        self.attempts = []
        self.running = {}

    async def dispatch(self, job, attempt):
        job_id = job.id
        self.store.begin(job_id, attempt)
        self.attempts.append((job_id, attempt))
        commands = self.running[job_id] = asyncio.Queue()
        try:
            yield progress(0)
            while (command := await commands.get()) != "return":
                if isinstance(command, Exception):
                    raise command
                yield command
        finally:
            del self.running[job_id]

    def step(self, job_id, done):
        self.running[job_id].put_nowait(progress(done))

    def finish(self, job_id):
        self.store.end(job_id)
        self.running[job_id].put_nowait("return")

    def leave(self, job_id):
        self.running[job_id].put_nowait("return")

    def die(self, job_id):
        self.running[job_id].put_nowait(RuntimeError("the replica died"))


def progress(done):
    return Progress(steps_done=done, steps_total=9, units_done=done // 3, prompts=((0, "a cat"),))


def make(store, *, slots=1, workers=1, queue_limit=8):
    hands = Workers(store)
    return Broker(store, hands.dispatch, workers=workers, slots=slots, queue_limit=queue_limit), hands
