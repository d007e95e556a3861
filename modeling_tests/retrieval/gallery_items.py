"""Captions to search for; two of them are equal."""

TEXTS = ["left half red", "right", "a red half is left", "right", "top half blue ?", "green"]
