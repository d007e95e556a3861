"""CB-ViLA for the Hugging Face ecosystem."""
