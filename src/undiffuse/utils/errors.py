"""What can go wrong through nobody's wrong command."""


class WorkFailed(RuntimeError):
    """The work could not be finished. The message says what is left of it; the command line exits with 1.

    A wrong path or value is a ValueError or FileNotFoundError instead, and exits with 2.
    """


class Interrupted(BaseException):
    """The user asked to stop and nothing is lost; the command line exits with 0.

    No Exception: what skips bad images must not skip this.
    """
