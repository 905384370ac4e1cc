"""The sections of the report of evaluate.py."""
