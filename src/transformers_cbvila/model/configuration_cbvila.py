"""The configuration of CB-ViLA models.

Every choice that the paper leaves open is a field; a preset is a named set of choices.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, configuration_utils

from .class_names_cbvila import CLASS_FIELDS, ChosenClasses, both_fields, check_consistent_classes, generic_names
from .configuration_checks_cbvila import (
    check_choices,
    check_combinations,
    check_model_type,
    check_numbers,
    check_spelling,
    check_sub_config,
    check_widths,
)
from .encoder_configurations_cbvila import (
    CBViLAFusionConfig,
    CBViLATextConfig,
    CBViLAVisionConfig,
)
from .messages_cbvila import shown
from .nested_options_cbvila import (
    FLAT_NAMES,
    NESTED,
    RENAMED,
    merge,
    nest,
    objective_options,
    preset_options,
    quantizer_options,
    with_new_names,
)
from .objective_cbvila import CBViLAObjectiveOptions
from .objectives_cbvila import OBJECTIVES
from .quantizers_cbvila import QUANTIZERS
from .remote_code_cbvila import saved_with_its_code

PRESETS = ("recommended", "paper", "albef", "codis")

_SUB_CONFIGS = {
    "vision_config": CBViLAVisionConfig,
    "text_config": CBViLATextConfig,
    "multimodal_config": CBViLAFusionConfig,
}
# transformers 5.20 needs specifications; later versions also take classes, and earlier ones neither.
_specification = getattr(configuration_utils, "SubConfigSpec", lambda config_class: config_class)
_SUB_CONFIG_SPECIFICATIONS = {name: _specification(config_class) for name, config_class in _SUB_CONFIGS.items()}
# A fusion layer is a text layer with cross-attention: fields that are not given are taken from the text encoder.
_FUSION_FOLLOWS_TEXT = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
)


@saved_with_its_code
@strict
class CBViLAConfig(PreTrainedConfig):
    r"""Configuration of CB-ViLA models. The defaults are the paper's sizes and the preset `recommended`.

    The flat names of version 0.1 for the options of quantizer and objectives (`codebook_size`, `mim_weight` …), and
    `fusion_config` for `multimodal_config`, are still accepted.

    Args:
        vision_config, text_config, multimodal_config (`dict` or config, *optional*): The three encoders.
        preset (`str`, defaults to `"recommended"`): Name of the preset that the configuration started from.
        quantizer_config (`dict`, *optional*): The quantizer and its options, such as
            `{"type": "nearest", "size": 256}`; see [`CBViLANearestQuantizerOptions`] and those of other quantizers.
        objectives (`dict`, *optional*): Options of the pretraining objectives by name, such as
            `{"mim": {"weight": 0.5, "head": "tied"}}`; see [`CBViLAMIMOptions`] and those of other objectives.
            Objectives and options that are not given keep their defaults. An objective with a weight of 0 is not
            built, and neither is the quantizer if no other objective needs it.
        fusion_visual_pos (`"learned"` or `"none"`, defaults to `"learned"`): Positions of visual queries. Without them
            (the paper mentions none) all masked tokens of an image are the same query.
        fusion_visual_cls (`"learned"`, `"vit"` or `"none"`, defaults to `"learned"`): The first visual query: a
            learned token, the image encoder's class token (never quantized), or none.
        itm_kv (`"continuous"`, `"quantized"` or `"both"`, defaults to `"continuous"`): What texts attend to, in ITM,
            MLM and all heads in which texts attend to images: the image encoder's tokens, its class token with the
            quantized tokens, or both (continuous ones first).
        projection_dim (`int`, defaults to 256): Width of the contrastive embeddings.
        logit_scale_init_value (`float`, defaults to 2.6592): Logarithm of the initial 1 / temperature (ln 1/0.07).
        num_images (`int`, defaults to 2): Images per statement in visual reasoning.
        reasoning_fusion (`"separate"` or `"twin"`, defaults to `"separate"`): How visual reasoning fuses a statement
            with its images: with each separately, and the classifier reads all joint representations; or, as in ALBEF,
            with two images in alternation, by twice as many fusion layers that share keys and values in pairs.
        rerank_k (`int`, defaults to 0): Default number of most similar items that a `CBViLARetriever` reranks by
            matching; 0 ranks by similarity only, which is cheap. `cbvila inspect` and the evaluation of
            `cbvila finetune retrieval` set it to what ranks better on their data.
        similarity_weight (`float`, defaults to 0.0): Default weight with which a `CBViLARetriever` adds similarity /
            temperature to the score of matching when it reranks; set by the same commands.
        match_calibration (`list[float]`, *optional*): Slope and offset that turn the scores of a `CBViLARetriever`,
            ordered as these two say, into probabilities of a match; set by the same commands.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.

    Example:
    ```python
    >>> from transformers_cbvila import CBViLAConfig

    >>> config = CBViLAConfig(vision_config={"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512})
    >>> config.multimodal_config.encoder_hidden_size
    128
    >>> config.quantizer_config.size, config.objectives["mim"].head
    (3000, 'linear')
    >>> CBViLAConfig.from_preset("paper").quantizer_config.gradient
    'gumbel'

    ```
    """

    model_type = "cbvila"
    sub_configs_defaults = _SUB_CONFIG_SPECIFICATIONS
    sub_configs = _SUB_CONFIGS  # the name up to transformers 5.19
    keys_to_ignore_at_inference = [
        "past_key_values",
        "cache",
        "losses",
        "codebook_indices",
        "codebook_counts",
        "codebook_statistics",
        "metrics",
        "mlm_logits",
        "mim_logits",
        "pixel_predictions",
        "question_hidden_states",
    ]

    # Given as a dictionary or None, a configuration after __post_init__.
    vision_config: Any = None
    text_config: Any = None
    multimodal_config: Any = None
    preset: str = "recommended"
    quantizer_config: Any = None
    objectives: Any = None
    fusion_visual_pos: str = "learned"
    fusion_visual_cls: str = "learned"
    itm_kv: str = "continuous"
    projection_dim: int = 256
    logit_scale_init_value: float = 2.6592
    num_images: int = 2
    reasoning_fusion: str = "separate"
    rerank_k: int = 0
    similarity_weight: float | int = 0.0
    match_calibration: list[float | int] | None = None
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        check_model_type(kwargs, type(self))
        if "use_cache" in kwargs:
            raise ValueError(
                f"use_cache={shown(kwargs['use_cache'])} of the whole model: the cache is the answer decoder's. Set "
                "it in text_config, or in the model's generation_config."
            )
        self.vision_config = _as_config("vision_config", self.vision_config)
        self.text_config = _as_config("text_config", self.text_config)
        if "fusion_config" in kwargs:
            self.multimodal_config = kwargs.pop("fusion_config")
        self.multimodal_config = _as_config("multimodal_config", self._complete_fusion(self.multimodal_config))
        nested = {name: getattr(self, name) for name in NESTED}
        nested |= {name: kwargs.pop(name) for name in FLAT_NAMES if name in kwargs}
        nest(nested)
        self.quantizer_config, self.objectives = (nested[name] for name in NESTED)
        check_spelling(kwargs, type(self), FLAT_NAMES)
        self.check()
        given = {"num_labels": kwargs.pop("num_labels", None), "id2label": self.id2label, "label2id": self.label2id}
        default_classes = both_fields(dict, generic_names(2))
        self.__dict__.update(default_classes)
        super().__post_init__(**kwargs)
        self.__dict__.update(default_classes)  # transformers has set them like chosen ones
        self._choose_classes({name: value for name, value in given.items() if value is not None})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CLASS_FIELDS and value is not None:
            value = ChosenClasses.of(name, value)
        elif name == "quantizer_config":
            value = quantizer_options(value)
        elif name == "objectives":
            value = objective_options(value)
        elif name in RENAMED:
            name = RENAMED[name]
        elif name in FLAT_NAMES:
            options, option = self._options_at(name)
            setattr(options, option, value)
            if isinstance(options, CBViLAObjectiveOptions):
                self.objectives[FLAT_NAMES[name][1]] = options
            return
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        """Returns the option of a flat name of version 0.1."""
        if name in FLAT_NAMES and "objectives" in self.__dict__:
            return getattr(*self._options_at(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _options_at(self, flat_name: str) -> tuple[Any, str]:
        """Returns the options that have the option of a flat name, and its name among them.

        For an objective that the configuration does not have, they are the default options.
        """
        where, objective, option = FLAT_NAMES[flat_name]
        found = getattr(self, where)
        if objective is not None:
            found = found[objective] if objective in found else OBJECTIVES[objective].options_class()
        return found, option

    @property
    def num_labels(self) -> int:
        """Number of classes of classification heads."""
        return len(self.id2label or ())

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        names = generic_names(number)
        self.__dict__.update(
            both_fields(ChosenClasses, self.id2label.values() if number == self.num_labels else names)
        )

    def _choose_classes(self, given: dict[str, Any]) -> None:
        """Sets the classes that a user chose by one or more of `num_labels`, `id2label` and `label2id`."""
        check_consistent_classes(given)
        for name in ("num_labels", "id2label", "label2id"):
            if name in given and not (name == "num_labels" and len(given) > 1):
                setattr(self, name, given[name])

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Creates a configuration from the contents of a file and the options of a caller.

        Classes of the file belong to its model, and heads for other tasks replace them; those of the caller are kept.

        Args:
            config_dict: The contents of the file.
            kwargs: Options that override it.

        Returns:
            The configuration; with `return_unused_kwargs=True` also the unused options.

        Raises:
            ValueError: If an option of the caller is misspelt, or its classes contradict each other.
        """
        kwargs = with_new_names(kwargs)
        check_spelling(kwargs, cls, FLAT_NAMES)
        for name, config_class in _SUB_CONFIGS.items():
            if kwargs.get(name) is not None:
                check_sub_config(name, kwargs[name], config_class)
            if isinstance(kwargs.get(name), dict):
                check_spelling(kwargs[name], config_class)
        given = {name: kwargs.pop(name) for name in ("num_labels", *CLASS_FIELDS) if kwargs.get(name) is not None}
        # In older checkpoints `use_cache` was set by Trainer, see `to_dict`.
        fields = {k: v for k, v in config_dict.items() if k != "use_cache"}
        changes = {name: kwargs.pop(name) for name in (*NESTED, *FLAT_NAMES) if name in kwargs}
        nest(fields)
        nest(changes)
        fields |= {where: merge(where, fields.get(where), changes[where]) for where in changes}
        loaded = super().from_dict(fields, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        config.__dict__.update({name: dict(getattr(config, name) or {}) for name in CLASS_FIELDS})
        config._choose_classes(given)
        return loaded

    def check(self) -> None:
        """Raises a ValueError for invalid values.

        Models call it again, as `from_pretrained` and users set fields of configurations that have been checked.
        """
        for name, config_class in _SUB_CONFIGS.items():
            if not isinstance(getattr(self, name), config_class):
                raise ValueError(f"{name} is {shown(getattr(self, name))}; expected a {config_class.__name__}.")
            getattr(self, name).check()
        self.quantizer_config.check("quantizer_config")
        for name, options in self.objectives.items():
            options.check(f"objectives[{name!r}]")
        check_choices(self)
        check_widths(self)
        check_numbers(self)
        check_combinations(self)

    @classmethod
    def from_preset(cls, name: str, **kwargs: Any) -> "CBViLAConfig":
        """Creates a configuration from a preset.

        Args:
            name: `"recommended"`; `"paper"` for the literal reading of the paper, whose codebook may collapse; or
                `"albef"` for ALBEF (arXiv 2107.07651), which has contrast, matching and MLM, and no codebook. What its
                training has besides, a momentum encoder with a queue, are options of [`CBViLATrainingArguments`]; see
                `recipes/pretrain-albef-base.yaml`. Where this differs from ALBEF's code: all known matches of a row
                share the target (ALBEF: one-hot in pretraining); negatives come from all processes (ALBEF: its own);
                the momentum encoder has no dropout; temperatures are 0.01 to 0.5 (ALBEF: from 0.001); captions keep
                their [SEP]. `"codis"` is ALBEF with CODIS (arXiv 2203.00048) in place of contrast.
            kwargs: Fields that override the preset.

        Raises:
            ValueError: If there is no preset of that name, or `quantizer_config` is given to one without a codebook.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {shown(name)}: choose one of {', '.join(PRESETS)}.")
        quantizer, chosen = kwargs.get("quantizer_config"), preset_options(name)
        for where, fields in chosen.items():
            kwargs[where] = merge(where, fields, kwargs.get(where))
        config = cls(**{"preset": name, **kwargs})
        if quantizer and not config.has_quantizer and not cls(**chosen).has_quantizer:
            raise ValueError(
                f"The preset {name!r} has no codebook: quantizer_config={shown(quantizer)} would build nothing. "
                "Leave it out, or give objectives that need a codebook a weight, such as "
                "objectives={'pixel': {'weight': 3.0}, 'codebook': {'weight': 1.0}, 'mim': {'weight': 1.0}}."
            )
        return config

    # Trainer sets `use_cache` of every configuration, False by default. Saved, it would disable the cache of trained
    # models.
    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a dictionary, without a `use_cache` of the whole model."""
        fields = {name: value for name, value in super().to_dict().items() if name != "use_cache"}
        objectives = {name: options.to_dict() for name, options in self.objectives.items()}
        return {**fields, "quantizer_config": self.quantizer_config.to_dict(), "objectives": objectives}

    def loss_weights(self) -> dict[str, float]:
        """Returns the weight of each loss term by name."""
        weights = {term: weight for weights in self._terms().values() for term, weight in weights.items()}
        return weights | self.quantizer_weights()

    def quantizer_weights(self) -> dict[str, float]:
        """Returns the weight of each loss term of the quantizer that no objective weighs, by name."""
        cls = QUANTIZERS[self.quantizer_config.type]
        return cls.loss_weights(self.quantizer_config) if self.has_quantizer else {}

    def loss_phases(self) -> dict[str, str]:
        """Returns the phase of training in which each loss term starts, by name; see [`CBViLAObjective`]."""
        phases: dict[str, str] = {
            term: OBJECTIVES[name].phase for name, weights in self._terms().items() for term in weights
        }
        return phases | dict.fromkeys(self.quantizer_weights(), "start")

    def active_objectives(self) -> list[str]:
        """Returns the names of the objectives with a positive weight."""
        return [name for name, weights in self._terms().items() if any(weight > 0 for weight in weights.values())]

    def _terms(self) -> dict[str, dict[str, float]]:
        """Returns the weight of each loss term by name, by objective."""
        return {name: OBJECTIVES[name].loss_weights(options) for name, options in self.objectives.items()}

    def needs(self, what: str) -> bool:
        """Returns whether an active objective needs `what`, such as `"quantizer"`; see [`CBViLAObjective`]."""
        return any(what in OBJECTIVES[name].needs for name in self.active_objectives())

    @property
    def has_contrastive_head(self) -> bool:
        """Whether the model has the projections and the temperature of the contrastive loss."""
        return self.needs("projections")

    @property
    def embeddings_train_encoders(self) -> bool:
        """Whether an active objective trains the encoders through the contrastive embeddings."""
        contrastive = [name for name in self.active_objectives() if "projections" in OBJECTIVES[name].needs]
        return any(OBJECTIVES[name].trains_encoders(self.objectives[name]) for name in contrastive)

    @property
    def has_quantizer(self) -> bool:
        """Whether the model needs quantized tokens."""
        return self.needs("quantizer") or self.itm_kv != "continuous"

    def require_quantizer(self) -> None:
        """Raises a ValueError if no active objective needs a quantizer."""
        if not self.needs("visual_queries"):
            raise ValueError(
                "No objective of this configuration predicts codes or pixels (all have weight 0), so that it has no "
                "quantizer: give one of them a weight."
            )

    @property
    def hides_patches(self) -> bool:
        """Whether an active objective masks patches."""
        return any(OBJECTIVES[name].hides_patches(self.objectives[name]) for name in self.active_objectives())

    @property
    def masks_before_encoder(self) -> bool:
        """Whether patches are masked before the image encoder instead of after it."""
        return any(getattr(options, "mask_stage", "post") == "pre" for options in self.objectives.values())

    def trains_encoder(self, tokens: str) -> bool:
        """Returns whether an objective trains the image encoder through `"quantized"` or `"detached"` tokens."""
        readers = [options for name, options in self.objectives.items() if OBJECTIVES[name].reads == tokens]
        return any(options.grad_to_vit for options in readers)

    def takes_hint(self, name: str) -> bool:
        """Returns whether the quantizer uses an additional input, such as `"token_classes"`."""
        return name in QUANTIZERS[self.quantizer_config.type].takes_hints

    def codes_differ_in_direction(self) -> bool:
        """Returns whether the quantizer's codes can be told apart by their directions."""
        return QUANTIZERS[self.quantizer_config.type].codes_differ_in_direction

    def book_sizes(self) -> tuple[int, ...]:
        """Returns the number of codes of each of the quantizer's books."""
        return QUANTIZERS[self.quantizer_config.type].sizes(self.quantizer_config)

    def feature_layers(self) -> tuple[int, ...]:
        """Returns the layers of the image encoder whose mean is quantized; none where its output is."""
        return QUANTIZERS[self.quantizer_config.type].feature_layers(self.quantizer_config)

    def _complete_fusion(self, fusion: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig:
        if isinstance(fusion, PreTrainedConfig):
            return fusion
        if fusion is not None:
            check_sub_config("multimodal_config", fusion, CBViLAFusionConfig)
        followed = {name: getattr(self.text_config, name) for name in _FUSION_FOLLOWS_TEXT}
        return {**followed, "encoder_hidden_size": self.vision_config.hidden_size, **(fusion or {})}


def _as_config(name: str, value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    config_class = _SUB_CONFIGS[name]
    if value is None:
        return config_class()
    check_sub_config(name, value, config_class)
    return config_class(**value) if isinstance(value, dict) else value


__all__ = ["CBViLAConfig", "CBViLAFusionConfig", "CBViLATextConfig", "CBViLAVisionConfig"]
