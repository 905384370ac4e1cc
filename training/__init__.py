"""Training of one network."""
