"""Runs: settings, the folder that holds one, and what can be done with it."""
