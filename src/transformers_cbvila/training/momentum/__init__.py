"""The momentum encoder and its queue."""
