"""Progress on a terminal and in a file."""

import re
import subprocess
import sys

import pytest

from tests.support.terminal import COLUMNS, run_on_terminal, shown_lines
from tfds_mosmed import progress

WORK = """
import sys, time, tqdm
from tfds_mosmed.progress import Progress, progress

for number in progress(range(40), 40, "Preparing ct_phantom/demo"):
    time.sleep(0.01)
    if number == 20:
        with tqdm.tqdm.external_write_mode(sys.stdout):
            print("a row")
with Progress("Training", 30000, unit="steps", done=10000) as shown:
    for step in range(30):
        shown.note("loss 0.512", "AUROC 0.801", "validation AUROC 0.777", "learning rate 0.001", "11.8 volumes/s")
        shown.advance(10)
        time.sleep(0.07)
"""


def test_a_terminal_shows_a_bar_that_fits_and_ends_as_one_line():
    status, written = run_on_terminal([sys.executable, "-c", WORK])
    assert status == 0
    lines = shown_lines(written)
    assert lines[0] == "a row"
    assert lines[1].startswith("Preparing ct_phantom/demo: 40 studies in ")
    assert lines[2].startswith("Training |")
    assert re.search(r"\| 10300/30000 steps, .* left, loss 0\.512", lines[2])
    assert lines[3:] == [""]
    drawn = [part for part in written.replace("\r", "\n").split("\n") if "|" in part]
    assert len(drawn) >= 4
    assert all(len(part) <= COLUMNS for part in drawn)


def test_a_file_gets_lines_and_no_bar():
    done = subprocess.run([sys.executable, "-c", WORK], stderr=subprocess.PIPE, text=True, check=True)
    first, last, training = done.stderr.splitlines()
    assert first == "Preparing ct_phantom/demo: 0 of 40 studies"
    assert last.startswith("Preparing ct_phantom/demo: 40 studies in 0.")
    assert training == "Training: 10000 of 30000 steps (33 %)"


def test_one_study_is_not_in_the_plural(capsys):
    assert list(progress.progress(range(1), 1, "Predicting")) == [0]
    first, last = capsys.readouterr().err.splitlines()
    assert first == "Predicting: 0 of 1 study"
    assert last.startswith("Predicting: 1 study in ")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_after_5_seconds_then_every_minute_with_the_time_left(clock, capsys):
    for number in progress.progress(range(200), 200, "Predicting"):
        clock[0] += 1
        if number == 150:
            break
    assert capsys.readouterr().err.splitlines() == [
        "Predicting: 0 of 200 studies",
        "Predicting: 5 of 200 studies (2 %), 3 min 15 s left",
        "Predicting: 65 of 200 studies (32 %), 2 min 15 s left",
        "Predicting: 125 of 200 studies (62 %), 1 min 15 s left",
    ]


def test_the_time_left_leaves_out_what_is_not_typical(clock, capsys):
    shown = progress.Progress("Training", 200, unit="steps", done=100)
    clock[0] += 60  # to compile
    shown.advance(10, is_typical=False)
    clock[0] += 10
    shown.note("epoch 2 of 3", "loss 0.5")
    shown.advance(10)
    assert capsys.readouterr().err.splitlines() == [
        "Training: 100 of 200 steps (50 %)",
        "Training: 110 of 200 steps (55 %)",
    ]
    shown.print_line()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "Training: 120 of 200 steps (60 %), epoch 2 of 3, loss 0.5, 1 min 20 s left"


def test_an_instant_in_which_steps_were_only_dispatched_tells_no_time_left(clock, capsys):
    shown = progress.Progress("Training", 100, unit="steps")
    clock[0] += 1
    shown.advance(3)
    shown.print_line()
    assert capsys.readouterr().err.splitlines()[-1] == "Training: 3 of 100 steps (3 %)"


def test_without_stderr_or_in_another_process_of_a_job_nothing_is_shown(monkeypatch, capsys):
    assert list(progress.progress(range(3), 3, "Predicting", shown=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", None)
    progress.announce("Compiling")
    assert list(progress.progress(range(3), 3, "Predicting")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0312, "0.031 s"),
        (9.4, "9.4 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert progress.duration(seconds) == words
