"""Training and evaluation of the network, and what the scripts share."""
