"""How good a set of sampled images is, by metrics that need no download."""
