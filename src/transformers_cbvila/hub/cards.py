"""Renders model cards from the templates of `hub_cards/`, one for each kind of checkpoint."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..model.configuration_cbvila import CBViLAConfig
from ..model.configuration_cbvila_conditional_generation import CBViLAConditionalGenerationConfig
from ..model.configuration_cbvila_qformer import CBViLAQFormerConfig
from ..model.quantizers_cbvila import QUANTIZERS
from .checking import Checkpoint
from .exports import exports_section
from .facts import Facts
from .results import results_table


def cards_folder() -> Path:
    """Returns `hub_cards/`: beside this file in an installed wheel (whose build copies it), else of the checkout."""
    installed = Path(__file__).parent / "hub_cards"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "hub_cards"


def render_card(checkpoint: Checkpoint, repo_id: str, facts: Facts) -> str:
    """Renders the card of a checkpoint: Markdown with the metadata that the Hub reads."""
    kind, config = checkpoint.kind, checkpoint.config
    texts = [(cards_folder() / name).read_text(encoding="utf-8") for name in ("begin.md", kind.card, "end.md")]
    card = ModelCard.from_template(
        _metadata(checkpoint, repo_id, facts),
        template_str="".join(texts),
        repo_id=repo_id,
        name=_name(repo_id),
        parts=_parts_table(checkpoint),
        data=_data_table(facts.data),
        recipe=facts.recipe,
        results=results_table(facts.results) if facts.results else "",
        codebook=facts.codebook if kind.has_codebook else "",
        exports=exports_section(checkpoint.folder),
        limits=facts.limits,
        license=facts.license,
        num_images=config.get("num_images", 2),
        language_model=config.get("language_model"),
        labels=_labels(config),
    )
    return str(card)


def read_card(path: str | Path) -> str:
    """Reads a card that was written by hand.

    Raises:
        ValueError: If there is none, or its metadata cannot be read or have no licence.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--card {path}: there is no such file")
    text = path.read_text(encoding="utf-8")
    try:
        licence = ModelCard(text).data.to_dict().get("license")
    except Exception as error:  # the YAML reader and the checks of metadata raise various types
        raise ValueError(f"the metadata at the top of {path} cannot be read: {' '.join(str(error).split())}") from None
    if not licence:
        raise ValueError(f"{path} names no licence; begin it with the lines '---', 'license: apache-2.0' and '---'")
    return text


def _name(repo_id: str) -> str:
    return repo_id.rpartition("/")[2]


def _metadata(checkpoint: Checkpoint, repo_id: str, facts: Facts) -> ModelCardData:
    kind = checkpoint.kind
    tags = ["cbvila", "vision-language", *(["codebook"] if kind.has_codebook else []), kind.task]
    results = [
        EvalResult(
            task_type=kind.task,
            dataset_type=result.dataset.lower().replace(" ", "-"),
            dataset_name=result.dataset,
            dataset_split=result.split,
            metric_type=result.metric.partition(",")[0],  # "accuracy" of "accuracy, shape"
            metric_name=result.title,
            metric_value=result.value,
        )
        for result in facts.results or ()
    ]
    return ModelCardData(
        model_name=_name(repo_id),
        license=facts.license,
        language=facts.language,
        library_name="transformers",
        pipeline_tag=kind.pipeline_tag,
        base_model=facts.base_model,
        tags=list(dict.fromkeys(tags)),
        eval_results=results or None,
    )


def _labels(config: dict[str, Any]) -> str:
    """Returns the class names in the order of the logits."""
    classes = config.get("id2label", {})
    return ", ".join(classes[key] for key in sorted(classes, key=int))


def _parts_table(checkpoint: Checkpoint) -> str:
    others = {
        CBViLAConditionalGenerationConfig.model_type: _parts_with_language_model,
        CBViLAQFormerConfig.model_type: _parts_of_qformer,
    }
    rows = others.get(checkpoint.config["model_type"], _parts)
    return _table(["", ""], [[name, value] for name, value in rows(checkpoint).items()])


def _parts_with_language_model(checkpoint: Checkpoint) -> dict[str, str]:
    config = CBViLAConditionalGenerationConfig.from_dict(checkpoint.config)
    adapter = config.language_model_adapter
    return {
        **_class_and_images(checkpoint, config.vision_config.to_dict()),
        "projector": f"`{config.projector_config.type}`, {config.num_image_tokens} tokens for each image",
        "language model": f"`{config.language_model}`, not in this repository; "
        + _encoder(config.text_config.get_text_config().to_dict())
        + ("" if adapter is None else f"; with an adapter in `{adapter}`, which needs `pip install peft`"),
    }


def _parts_of_qformer(checkpoint: Checkpoint) -> dict[str, str]:
    config = CBViLAQFormerConfig.from_dict(checkpoint.config)
    return {
        **_class_and_images(checkpoint, config.vision_config.to_dict()),
        "Q-Former": f"{_encoder(config.to_dict())}, at most {config.max_position_embeddings} tokens",
        "queries": f"{config.num_query_tokens}, which attend to the image in one of every "
        f"{config.cross_attention_frequency} layers; every choice is in `config.json`",
    }


def _class_and_images(checkpoint: Checkpoint, vision: dict[str, Any]) -> dict[str, str]:
    sides = [f"{vision.get(name, '?')}×{vision.get(name, '?')}" for name in ("image_size", "patch_size")]
    return {
        "class": f"`{checkpoint.kind.model_class.__name__}`",
        "parameters": f"{checkpoint.num_parameters:,}",
        "images": f"{sides[0]} pixels, patches of {sides[1]}",
        "image encoder": _encoder(vision),
    }


def _parts(checkpoint: Checkpoint) -> dict[str, str]:
    config = checkpoint.config
    whole = CBViLAConfig.from_dict(config)  # also reads configurations of version 0.1
    vision, text, fusion = (
        part.to_dict() for part in (whole.vision_config, whole.text_config, whole.multimodal_config)
    )
    rows = {
        **_class_and_images(checkpoint, vision),
        "text encoder": f"{_encoder(text)}, at most {text.get('max_position_embeddings')} tokens",
        "fusion encoder": _encoder(fusion),
    }
    if checkpoint.kind.has_codebook or checkpoint.kind.auto_class == "AutoModel":
        rows["quantizer"] = _quantizer(whole.quantizer_config)
    rows["preset"] = f"`{config.get('preset')}`; every choice is in `config.json`"
    return rows


def _quantizer(options: Any) -> str:
    sizes = QUANTIZERS[options.type].sizes(options)
    books = f"{len(sizes)} books of " if len(sizes) > 1 else ""
    each = f"{sizes[0]:,}" if len(set(sizes)) == 1 else " and ".join(f"{size:,}" for size in sizes)
    return f"`{options.type}`, {books}{each} visual words"


def _encoder(config: dict[str, Any]) -> str:
    return f"{config.get('num_hidden_layers')} layers, {config.get('hidden_size')} wide"


def _data_table(data: list[dict[str, str]]) -> str:
    return _table(["data", "what", "licence"], [[item["name"], item["what"], item["license"]] for item in data])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
