"""Codebook training besides gradients."""
