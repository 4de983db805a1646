"""Exception for errors that a user can correct."""

import difflib
import re
from collections.abc import Collection


class UserError(ValueError):
    """Error in what the user gave: a file, a folder, a flag.

    The message is one line that names the file or flag and the remedy. Commands print it without a traceback.
    """


# What reading a damaged or edited JSON file may raise, and taking it apart.
NOT_AS_WRITTEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# Control characters but tab and line feed, among them the escape sequences of terminals, changes of direction, and what
# has no width; not the joiners U+200C and U+200D, which words are written with.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Write control characters as their codes, as in r"\\x1b": text of files must not control a terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, which libraries follow with details; its type if there is none."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def one_line(message: object) -> str:
    """Join the lines of a message, which a file name in it may have broken; see `visible`."""
    return visible(" ".join(str(message).split()))


def did_you_mean(given: str, known: Collection[str]) -> str:
    """Return " Did you mean …?" with one or two known words that are like a given one, or ""."""
    likely = difflib.get_close_matches(given, known, n=2)
    return f" Did you mean {' or '.join(likely)}?" if likely else ""
