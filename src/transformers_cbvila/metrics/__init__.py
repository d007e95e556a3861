"""Metrics as pure functions, and the modules that `evaluate` loads."""
