"""Utilities shared by all packages, independent of networks and images."""
