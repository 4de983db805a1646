"""Refusals of studies that cannot be used."""

import pytest

from tfds_mosmed.errors import UserError
from tfds_mosmed.scans.read import read_scan
from tfds_mosmed.scans.scan import ScanError


def assert_refused(path, *words):
    """Reading fails with one line: the study, the reason with these words, the remedy; nothing that names a patient."""
    with pytest.raises(ScanError) as error:
        read_scan(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "planted" not in message.lower()
    for word in (*words, "; "):
        assert word in message


def assert_one_line(error, path, *words):
    """An error is one line about a file, with these words."""
    message = str(error.value)
    assert isinstance(error.value, UserError)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message
