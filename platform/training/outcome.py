"""How a run ends that does not reach its last step."""


class StoppedError(Exception):
    """Someone asked for it: every step so far is in a checkpoint.

    Attributes:
        step: of that checkpoint.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class RunFailedError(Exception):
    """Machines failed more often than the spec bears; one line says what happened and how to go on."""
