"""The browser of the tests of pages."""

import shutil

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def leaves(url: str) -> bool:
    """Return whether a page requests something outside itself."""
    return not url.startswith(("file:", "data:", "blob:"))
