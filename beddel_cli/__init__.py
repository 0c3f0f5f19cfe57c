"""Run code you do not trust, and get a receipt that others can check."""

__version__ = "0.1.0"
