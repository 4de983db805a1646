"""Exception for errors that a user can correct."""


class UserError(ValueError):
    """Error in what the user gave: a file, a folder, a flag.

    The message is one line that names the file or flag and the remedy. Commands print it without a traceback.
    """


def one_line(message: object) -> str:
    """Join the lines of a message, which a file name in it may have broken."""
    return " ".join(str(message).split())
