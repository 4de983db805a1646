"""Exceptions that end a job which has saved its state and is to be run again, with their exit statuses."""


class RunAgain(Exception):  # noqa: N818 - not an error
    """The command was asked to end early, and has saved: the same command resumes."""

    status = 75  # EX_TEMPFAIL of sysexits.h: "the user is invited to retry"


class LostProcess(RunAgain):
    """Another process of the job is gone; its error message says whether to run the command again."""

    status = 76  # EX_PROTOCOL: "the remote system did something not possible"
