"""Data: sources of rows, examples and views drawn from them, and collators that make batches."""
