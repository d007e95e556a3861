"""Pictures drawn from captions."""
