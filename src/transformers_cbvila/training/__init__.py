"""Training of CB-ViLA models."""
