"""Exceptions that end a job before it is done, with their exit statuses."""

STOPPED = "stopped; the same command resumes from the last checkpoint, if there is one"  # of a training


class RunAgain(Exception):  # noqa: N818 - not an error
    """The command was asked to end early, as when a machine is taken away; it is to be started again.

    The message is one line that ends with what the same command does then.
    """

    status = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry"


class StoppedByUser(RunAgain):
    """A person stopped it, with Ctrl-C or a file `stop`: no scheduler is to start it again."""

    status = 130  # of shells for Ctrl-C


class LostProcess(RunAgain):
    """Another process of the job is gone, hangs or never came."""

    status = 76  # EX_PROTOCOL: "the remote system did something not possible"
