"""The one kind of error that a user can cause and mend."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, a folder, a flag.

    The message is one line, names the file or flag and says the way out. Commands print it without a traceback.
    """
