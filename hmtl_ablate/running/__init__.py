"""Ray Tune executes, Optuna decides: places trials, stops them, and continues after any crash."""
