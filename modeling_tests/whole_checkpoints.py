"""The bundled checkpoints that load by themselves; one for a language model has neither that nor its tokenizer."""

from pathlib import Path

from transformers_cbvila import bundled_checkpoint
from transformers_cbvila.bundled import bundled_checkpoints

WHOLE = [name for name in bundled_checkpoints() if Path(bundled_checkpoint(name), "tokenizer.json").is_file()]
