"""How good a network is: scoring, metrics, calibration, predictions, attribution maps, FID."""
