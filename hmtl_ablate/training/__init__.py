"""One trial: the loop, evaluation, checkpoints, metrics. Knows no Ray, no MLflow, no Optuna."""
