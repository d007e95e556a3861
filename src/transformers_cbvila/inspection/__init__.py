"""Looks inside a pretrained model: metrics on held-out pairs, and what its visual words stand for."""
