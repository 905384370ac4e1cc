"""Hyperparameter search: W&B sweep files run with Optuna."""
