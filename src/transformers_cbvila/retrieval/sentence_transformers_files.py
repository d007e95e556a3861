"""Files beside a model by which sentence-transformers reads it: `SentenceTransformer(folder)` encodes both kinds."""

import json
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from ..model.configuration_cbvila import CBViLAConfig
from ..model.messages_cbvila import shown
from ..output_files import write_json

_EMBEDDINGS = {"method_output_name": "pooler_output"}  # the projections that contrast trains
_HEADS = ("CBViLAForPreTraining", "CBViLAForImageTextRetrieval")
FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ],
    "sentence_bert_config.json": {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "get_text_features", **_EMBEDDINGS},
            "image": {"method": "get_image_features", **_EMBEDDINGS},
        },
        "module_output_name": "sentence_embedding",
    },
    "config_sentence_transformers.json": {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
}


def write_sentence_transformers_files(folder: str | Path) -> None:
    """Writes the files by which `SentenceTransformer(folder)` encodes texts and images, beside a model.

    Its embeddings are those of `get_text_features` and `get_image_features`, and its similarity is their cosine.
    Import this package first, so that transformers knows the model.

    Args:
        folder: The folder of a model that was trained with ITC, such as for pretraining or retrieval.

    Raises:
        FileNotFoundError: If the folder has no model.
        ValueError: If its texts and images cannot be compared.
    """
    file = Path(folder) / CONFIG_NAME
    if not file.is_file():
        raise FileNotFoundError(f"{shown(str(folder), 255)} has no {CONFIG_NAME}: give the folder of a model.")
    known = json.loads(file.read_text(encoding="utf-8"))
    compares = not set(_HEADS).isdisjoint(known.get("architectures") or [])
    if not compares or not CBViLAConfig.from_dict(known).has_contrastive_head:
        raise ValueError(
            f"{shown(str(folder), 255)} has no model whose texts and images can be compared: give a "
            "CBViLAForPreTraining or a CBViLAForImageTextRetrieval that was trained with ITC."
        )
    for name, content in FILES.items():
        write_json(Path(folder) / name, content)
