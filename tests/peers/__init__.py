"""Benchmarks against other systems: training and inference, preparation of a study, time to a target AUROC.

`bash tests/peers/run.sh` runs all of them. The modules that run in the peers' environment (`systems/`, `networks/` and
`replies.py`) do not need CovidScan there.
"""
