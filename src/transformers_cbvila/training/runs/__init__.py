"""Checkpoints, conditions and records of runs."""
