"""Programs that measure ratios, one a claim: python -m benchmarks.sampler, classifier, train_step."""
