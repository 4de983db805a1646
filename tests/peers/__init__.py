"""CovidScan beside other systems: training and inference, preparation of a study, time to a target AUROC.

`bash tests/peers/run.sh` runs all of it. What is imported into the peers' environment (`systems/`, `networks/` and
`answering.py`) needs nothing of CovidScan there.
"""
