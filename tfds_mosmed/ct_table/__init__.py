"""Studies that a table lists, with their labels, patients, sites and parts."""
