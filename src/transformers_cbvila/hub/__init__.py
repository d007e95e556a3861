"""Publishing to the Hugging Face Hub: check, stage, verify, upload, verify again."""
