"""Explanations: where in an image the words of a text look, and which visual words speak for them."""
