"""Log of a run."""

import threading

from covidscan.runs.log import RunLog
from tests.support import runs


@runs.may_mount
def test_a_full_disk_raises_and_does_not_block(tmp_path):
    errors = []

    def write_for_ever():
        try:
            with RunLog(tmp_path, 0, 1000, writes=True) as log:
                for step in range(1, 1000):
                    log.write(step, "train", {f"metric_{number}": 0.5 for number in range(12)})
        except OSError as error:
            errors.append(error)

    with runs.small_disk(tmp_path, "16k"):
        writer = threading.Thread(target=write_for_ever, daemon=True)
        writer.start()
        writer.join(timeout=20)
        assert not writer.is_alive()
        assert [error.filename for error in errors] == [str(tmp_path / "metrics.jsonl")]
