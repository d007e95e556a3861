"""What tasks of a frozen language model have in common: its model, and the options of what is trained around it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundled import class_of_checkpoint
from ..data.conditional_generation_collator import CBViLADataCollatorForConditionalGeneration
from ..data.given_options import Repeatable
from ..extras import require
from ..model.configuration_cbvila_qformer import CBViLAQFormerConfig
from ..model.messages_cbvila import shown
from ..model.modeling_cbvila_conditional_generation import CBViLAForConditionalGeneration
from ..model.processing_cbvila_conditional_generation import CBViLAConditionalGenerationProcessor
from .language_adapter import DEFAULT_RANK, add_lora
from .task import Task, check_at_least

_LORA_OPTIONS = ("lora", "lora_rank", "lora_alpha", "lora_target")
_NEEDS_LANGUAGE_MODEL = "name a causal language model of transformers: --language_model FOLDER, or its Hub id"


@dataclass
class LanguageModelTask(Task):
    """A task whose model is a frozen language model that reads images, and what it learns to write."""

    head = CBViLAForConditionalGeneration
    card = "language_model.md"
    hub_task = pipeline_tag = "image-text-to-text"
    training_options = frozenset({"projector_option", "projector_start", "freeze_vision_tower", *_LORA_OPTIONS})
    evaluation_options = frozenset({"max_new_tokens"})

    language_model: str | None = field(
        default=None,
        metadata={"help": "Causal language model: folder or Hub id; default: the one that the checkpoint names."},
    )
    projector_option: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Option of the projector, such as type=mlp, side=4 or length=2; several may be given.",
            "action": Repeatable,
        },
    )
    projector_start: str | None = field(
        default=None,
        metadata={
            "help": "Q-Former of `cbvila pretrain --head qformer` (folder or Hub id) that the projector starts from; "
            "its sizes are the projector's."
        },
    )
    freeze_vision_tower: bool = field(
        default=False, metadata={"help": "Train the projector alone, and leave the image encoder as it is."}
    )
    lora: bool = field(
        default=False,
        metadata={
            "help": "Train an adapter of the language model as well (LoRA, by PEFT), which is saved beside the "
            "projector; the language model itself stays as it is."
        },
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": f"Rank of the adapter's matrices; default: {DEFAULT_RANK}."}
    )
    lora_alpha: int | None = field(
        default=None, metadata={"help": "Scale of the adapter, times its rank; default: twice the rank."}
    )
    lora_target: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Linear layer of the language model that gets an adapter, such as q_proj; several may be given; "
            "default: all of its blocks.",
            "action": Repeatable,
        },
    )
    max_new_tokens: int = field(default=40, metadata={"help": "Longest text that evaluation has written, in tokens."})

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        super().__post_init__()
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        self._check_lora()
        _ = self._projector_options

    def _check_lora(self) -> None:
        for name, value in (("lora_rank", self.lora_rank), ("lora_alpha", self.lora_alpha)):
            if value is not None:
                check_at_least(name, value, 1)
        given = [name for name in _LORA_OPTIONS[1:] if getattr(self, name)]
        if given and not self.lora:
            raise ValueError(f"{', '.join(given)} of an adapter, and no adapter is trained: add lora.")

    @property
    def projector_config(self) -> dict[str, Any]:
        """The options of the projector by name, where it starts from a Q-Former beside that one's own."""
        start = self.projector_start
        sizes = {} if start is None else CBViLAQFormerConfig.from_pretrained(start).projector_config()
        return sizes | self._projector_options

    @property
    def _projector_options(self) -> dict[str, Any]:
        found = {}
        for option in self.projector_option:
            name, mark, value = option.partition("=")
            if not mark:
                raise ValueError(f"projector_option={shown(option)}: expected OPTION=VALUE, such as length=4.")
            try:
                found[name] = json.loads(value)
            except ValueError:  # a word
                found[name] = value
        return found

    @classmethod
    def processor_class(cls) -> type[Any]:
        """Returns the class of its models' processors."""
        return CBViLAConditionalGenerationProcessor

    def loading_options(self) -> dict[str, Any]:
        """Returns the language model, if one is given in place of the one that a checkpoint names."""
        return {} if self.language_model is None else {"language_model": self.language_model}

    def create(self, source: str, from_scratch: bool) -> tuple[Any, Any]:
        """Returns a model with a new projector, or one that was trained for the task before, and its processor."""
        if self.lora:
            require("peft")  # before anything is loaded
        model, processor = self._created(source, from_scratch)
        if self.lora:
            add_lora(model, self.lora_rank, self.lora_alpha, self.lora_target)
        return model, processor

    def _created(self, source: str, from_scratch: bool) -> tuple[Any, Any]:
        """Returns the model without a new adapter, and its processor."""
        is_trained = class_of_checkpoint(source) == self.head.__name__
        if is_trained and not from_scratch:
            if self.projector_start is not None:
                raise ValueError(
                    f"projector_start={shown(self.projector_start)}: {source} has a projector already; leave it out, "
                    "or give the model that the Q-Former was trained on."
                )
            options = self.loading_options()
            if self.projector_option:
                options["projector_config"] = self.projector_config
            if self.freeze_vision_tower or self.is_given("freeze_vision_tower"):
                options["freeze_vision_tower"] = self.freeze_vision_tower
            processor = self.processor_class().from_pretrained(source, **self.loading_options())
            return self.head.from_pretrained(source, **options), processor
        if is_trained:
            raise ValueError(
                "from_scratch needs a checkpoint without a projector, such as a pretrained one, as model."
            )
        if self.language_model is None:
            raise ValueError(f"{self.name} trains a model to be read by a language model: {_NEEDS_LANGUAGE_MODEL}.")
        model = self.head.from_vision_language_pretrained(
            source,
            self.language_model,
            self.projector_config,
            freeze_vision_tower=self.freeze_vision_tower,
            projector_start=self.projector_start,
        )
        if from_scratch:
            tower = model.model.vision_tower
            tower.load_state_dict(type(tower)._from_config(model.config.vision_config).state_dict())
        processor = self.processor_class().from_vision_language_pretrained(
            source, self.language_model, model.config.num_image_tokens
        )
        return model, processor

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, folders by their names only."""
        folders = {"language_model": self.language_model, "projector_start": self.projector_start}
        names = {option: folder and without_folder(folder) for option, folder in folders.items()}
        return super().recorded_options() | names

    def width(self, config: Any) -> int:
        """Returns the width of the image encoder: the language model is not trained."""
        return config.vision_config.hidden_size

    def collator(self, processor: Any, config: Any) -> CBViLADataCollatorForConditionalGeneration:
        """Returns the collator of images and what is written about them."""
        return CBViLADataCollatorForConditionalGeneration(processor)


def without_folder(name: str) -> str:
    """Returns a Hub id or the name of a metric as it is, and of a folder the last part."""
    return Path(name).name if Path(name).is_dir() else name
