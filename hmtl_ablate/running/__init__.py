"""Runs a study: the Conductor decides what comes next, an engine (Ray, or this process) trains it, Optuna draws and
prunes a search's trials. A stopped or crashed run is resumed from the trials' folders."""
