"""Log of a run."""

import threading

from covidscan.runs.log import RunLog
from tests.support import runs


@runs.may_mount
def test_a_full_disk_raises_and_does_not_block(tmp_path):
    errors = []

    def write_for_ever():
        try:
            with RunLog(tmp_path, 0, 1000, 10, writes=True) as log:
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


def test_a_file_gets_a_line_at_each_validation(tmp_path, capsys):
    with RunLog(tmp_path, 0, 200, 10, writes=True) as log:
        assert capsys.readouterr().err == ""  # what comes before the first step is announced
        for step in range(10, 50, 10):
            log.advance(10)
            train = {"loss": 0.51234, "auroc": 0.8014, "learning_rate": 0.00123, "volumes_per_second": 11.83}
            log.write(step, "train", train)
            if step % 40 == 20:
                log.write(step, "validation", {"loss": 0.6, "auroc": None})
            elif step % 40 == 0:
                log.write(step, "validation", {"loss": 0.6, "auroc": 0.75})
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "Epoch 1/10: 0 of 200 steps"
    train = "{}loss 0.512, AUROC 0.801, learning rate 0.0012, 11.8 volumes/s"
    assert lines == [
        f"Epoch 1/10: 20 of 200 steps (10 %), {train.format('')}",
        f"Epoch 2/10: 40 of 200 steps (20 %), {train.format('val AUROC 0.750, ')}",
    ]
