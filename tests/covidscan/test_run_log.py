"""The log of a run."""

import os
import subprocess
import threading

import pytest

from covidscan.run_log import RunLog


@pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="only root may mount a small disk")
def test_a_full_disk_ends_the_run_and_does_not_make_it_wait(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path], check=True)
    told = []

    def write_for_ever():
        try:
            with RunLog(tmp_path, 0, 1000, writes=True) as log:
                for step in range(1, 1000):
                    log.write(step, "train", {f"figure_{number}": 0.5 for number in range(12)})
        except OSError as error:
            told.append(error)

    try:
        writer = threading.Thread(target=write_for_ever, daemon=True)
        writer.start()
        writer.join(timeout=20)
        assert not writer.is_alive()
        assert [error.filename for error in told] == [str(tmp_path / "metrics.jsonl")]
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
