"""The benchmarks: tables of synthetic results, and the sizes of networks if the peers are installed."""

import subprocess
from pathlib import Path

import pytest

from tests.peers import auroc, tables
from tests.peers.networks import flax_networks
from tests.peers.processes import PEERS, README, ROOT, summary
from tfds_mosmed.errors import UserError

SHAPE = (32, 64, 64)


def timing(seconds, ratio):
    return {"median": seconds, "min": seconds, "max": seconds, "ratio": ratio}


def system(seconds, ratio):
    return {"train": timing(seconds, ratio), "predict": timing(seconds / 4, ratio)}


def synthetic(measure, found):
    circumstances = {
        "date": "2026-01-02",
        "machine": {"processor": "Example 1 GHz", "cores": 2},
        "versions": {"covidscan": {"jax": "1.0"}, "peers": {"keras": "3.0"}},
    }
    return {measure: circumstances | {"found": found}}


STEPS = synthetic(
    "steps",
    [
        {
            "network": "covidscan_cnn",
            "grid": "64x64x32",
            "batch_size": 2,
            "systems": {"CovidScan": system(0.5, 1.0), "Keras": system(0.6, 1.21), "PyTorch": system(1.0, 2.0)},
        },
        {
            "network": "default",
            "grid": "128x128x32",
            "batch_size": 8,
            "systems": {"lung_resnet": system(2.0, 1.0), "DenseNet121": system(16.0, 8.0)},
        },
    ],
)
PREPARATION = synthetic(
    "preparation",
    {
        "study": {"shape": [512, 512, 37], "bytes": 12_000_000},
        "paths": {"CovidScan, 128x128x32": timing(0.08, 1.0), "MONAI, 128x128x32": timing(0.4, 5.0)},
        "processes": {"1": timing(0.8, 1.9), "2": timing(0.42, 1.0)},
    },
)
AUROC = synthetic(
    "auroc",
    {
        "cap": 10.0,
        "studies": 200,
        "runs": [
            {
                "system": "CovidScan",
                "preparation": 10.0,
                "reached": {"0.95": 100.0, "0.98": 150.0},
                "ended": 160.0,
                "finished": False,
                "evaluations": [[90.0, 0.96], [140.0, 0.99], [150.0, 0.985]],
            },
            {
                "system": "Peer",
                "preparation": 50.0,
                "reached": {"0.95": 1200.0, "0.98": None},
                "ended": 1500.0,
                "finished": False,
                "evaluations": [[1150.0, 0.953], [1400.0, 0.951]],
            },
        ],
    },
)


def test_tables_show_medians_ratios_versions_and_machine():
    text = tables.performance(STEPS | PREPARATION | AUROC)
    rows = text.splitlines()
    same = "| the original CovidScan's, 64x64x32, 2 | 0.500 s | 0.600 s (1.21x) | 1.00 s (2.00x) "
    assert f"{same}| 16.0/s | 13.3/s (1.21x) | 8.00/s (2.00x) |" in rows
    assert "| each its own, 128x128x32, 8 | 2.00 s | 16.0 s (8.00x) | 16.0/s | 2.00/s (8.00x) |" in rows
    assert "| MONAI, 128x128x32 | 2.50 | 0.400 s | 5.00x |" in rows
    assert "Two processes prepare 1.90 times as many studies per second as one." in rows
    assert "| CovidScan | 10 s | 100 s | 150 s | 0.990 (3) |" in rows
    assert "| Peer | 50 s | 1200 s (12.0x) | > 1500 s (> 10.0x) | 0.953 (2) |" in rows
    assert text.count("2026-01-02, 2 cores of Example 1 GHz. CovidScan: jax 1.0. Peers: keras 3.0.") == 1


def test_measures_of_different_days_have_a_line_each():
    other = {"preparation": PREPARATION["preparation"] | {"date": "2026-01-03"}}
    text = tables.performance(STEPS | other)
    assert text.index("2026-01-02, 2 cores") < text.index("**Preparation**") < text.index("2026-01-03, 2 cores")


def test_the_readme_keeps_everything_but_its_tables(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    tables.write_readme(readme, STEPS)
    tables.write_readme(readme, PREPARATION)
    text = tables.performance(PREPARATION)
    assert readme.read_text() == f"before\n{tables.BEGIN}\n{text}\n{tables.END}\nafter\n"
    readme.write_text("nothing\n")
    with pytest.raises(UserError, match=r"README\.md: put the lines"):
        tables.write_readme(readme, STEPS)


def test_the_readme_has_a_place_for_the_tables():
    text = README.read_text()
    assert (
        text.index("# Benchmarks")
        < text.index(tables.BEGIN)
        < text.index(tables.END)
        < text.index("## Benchmark of one")
    )


def test_a_target_is_reached_if_the_next_evaluation_confirms_it():
    evaluations = [(1.0, 0.99), (2.0, 0.9), (3.0, 0.95), (4.0, 0.96), (5.0, 0.97)]
    assert auroc.reached(evaluations, 0.95) == 3.0
    assert auroc.reached(evaluations, 0.98) is None
    assert auroc.reached(evaluations[:1], 0.95) is None


def test_an_interrupted_comparison_continues(monkeypatch):
    trained = []

    def train(system, limit):
        trained.append((system.name, limit))
        return auroc.Training([(90.0, 0.99), (95.0, 0.99)], 100.0, finished=False)

    monkeypatch.setattr(auroc, "train", train)
    monkeypatch.setattr(auroc, "export_records", lambda folder: None)
    names = ("CovidScan, 128x128x32, as a record", "Keras example, 128x128x64", "MONAI, 128x128x32")
    paths = {name: {"median": 0.1} for name in (*names, "the original CovidScan, 64x64x32")}
    comparison = auroc.measure(10.0, paths)
    first, second = next(comparison), next(comparison)
    assert first["runs"][0]["reached"] == {"0.95": 100.0, "0.98": 100.0}  # 10 s for 200 studies in two processes
    *_, last = auroc.measure(10.0, paths, before=second)
    names = [name for name, _ in trained]
    assert names[:2] == [names[-1], f"{names[-1]}, labels alone"]
    assert len(names) == len(set(names)) + 1 == len(last["runs"])
    assert [limit for _, limit in trained[2:4]] == [980.0, 980.0]  # both Keras programs prepare in one process, 20 s
    *_, anew = auroc.measure(5.0, paths, before=last)
    assert anew["cap"] == 5.0


def test_ratios_are_taken_within_a_round():
    # Another program slowed both systems down in the second round.
    assert summary([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"median": 2.0, "min": 2.0, "max": 20.0, "ratio": 2.0}


@pytest.mark.skipif(not Path(PEERS).exists(), reason="the peers are not installed: run bash tests/peers/run.sh")
@pytest.mark.parametrize("network", ["covidscan_cnn", "keras_example"])
@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a_network_has_the_same_number_of_parameters_in_each_framework(network, framework):
    module = f"{framework}_networks"
    count = f"from tests.peers.networks import {module} as n; print(n.count(n.NETWORKS['{network}']({SHAPE})))"
    done = subprocess.run([PEERS, "-c", count], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == flax_networks.count(network, SHAPE)


def test_covidscan_cnn_has_as_many_parameters_as_the_original():
    assert flax_networks.count("covidscan_cnn", SHAPE) == 77_426_562
