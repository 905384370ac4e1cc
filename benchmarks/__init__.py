"""Benchmarks, one per claim: python -m benchmarks.sampler, classifier, train_step, parity."""
