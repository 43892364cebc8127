"""A study's result as one file that somebody else can check.

    layout      what is in a bundle: names, limits, differences
    scrubbing   leaves paths, users and hosts out
    writing     store → bundle
    reading     bundle → folder, as hostile input: nothing of it runs, nothing leaves the folder
    rebuilding  the folder's records and trials → the frames of a report
    trials      one trial against itself: id, curves, metrics recomputed from the predictions
    verifying   all of it against the tables

This package imports none of them by itself.
"""
