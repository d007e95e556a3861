"""The configuration of every CB-ViLA model; those of its encoders are in encoder_configurations_cbvila.py.

Nothing here computes: every choice the paper leaves open is a field, and a preset is a named set of choices.
"""

from math import inf, isfinite
from typing import Any, Literal, get_args

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, configuration_utils

from .class_names_cbvila import CLASS_FIELDS, ChosenClasses, both_fields, generic_names, require_one_story
from .encoder_configurations_cbvila import (
    CBViLAFusionConfig,
    CBViLATextConfig,
    CBViLAVisionConfig,
    refuse_misspelt,
)
from .messages_cbvila import shown
from .remote_code_cbvila import saved_with_its_code

QuantizerGradient = Literal["straight_through", "gumbel", "rotation"]
CodebookUpdate = Literal["loss", "ema"]
CodebookNorm = Literal["l2", "none"]
MIMHead = Literal["linear", "tied"]
PixelOn = Literal["all", "masked", "both"]
NegativeSource = Literal["similarity", "uniform"]
MIMMaskStage = Literal["post", "pre"]
FusionVisualPos = Literal["learned", "none"]
FusionVisualCls = Literal["learned", "vit", "none"]
ITMKeys = Literal["continuous", "quantized", "both"]
PixelLikelihood = Literal["gaussian", "laplace"]
PixelReduction = Literal["mean", "sum_patch"]
ReasoningFusion = Literal["separate", "twin"]

# What differs between the presets; everything else is the field default. `recommended` is the field defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {},
    "paper": {
        "quantizer_gradient": "gumbel",
        "codebook_update": "loss",
        "codebook_dim": None,  # the width of the vision encoder: Eq. 1 compares codes with ViT outputs directly
        "codebook_norm": "none",
        "commitment_weight": 0.25,
        "pixel_weight": 1.0,
        "pixel_on": "both",
        "itc_weight": 0.0,
        "mim_grad_to_vit": True,
    },
}


_SUB_CONFIGS = {
    "vision_config": CBViLAVisionConfig,
    "text_config": CBViLATextConfig,
    "fusion_config": CBViLAFusionConfig,
}
# transformers 5.20 needs specifications; later versions take the classes themselves, too, and earlier ones neither.
_specification = getattr(configuration_utils, "SubConfigSpec", lambda config_class: config_class)
_SUB_CONFIG_SPECIFICATIONS = {name: _specification(config_class) for name, config_class in _SUB_CONFIGS.items()}
# A fusion layer is a text layer with cross-attention: what is not said about it is taken from the text encoder.
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
    r"""Configuration of every CB-ViLA model. The defaults are the paper's sizes and the preset `recommended`.

    Args:
        vision_config, text_config, fusion_config (`dict` or config, *optional*): The three encoders.
        preset (`str`, defaults to `"recommended"`): Name of the preset the configuration started from, for the record.
        codebook_size (`int`, defaults to 3000): Number of codes K ("3K", Sec. IV-C).
        codebook_dim (`int`, *optional*, defaults to 32): Code width C. `None` is the width of the vision encoder, as
            Eq. 1 reads literally; then there are no projections around the look-up.
        codebook_norm (`"l2"` or `"none"`, defaults to `"l2"`): Whether latents and codes are unit vectors.
        codebook_update (`"ema"` or `"loss"`, defaults to `"ema"`): How codes learn: by a moving average of the latents
            assigned to them (a deviation from the paper: after a k-means start both live, and the averages stay more
            varied, docs/study.md), or by the second term of Eq. 3.
        codebook_decay (`float`, defaults to 0.99): Decay of that moving average, per optimiser step.
        quantizer_gradient (`"straight_through"`, `"gumbel"` or `"rotation"`, defaults to `"straight_through"`): How
            gradients pass the look-up. Noise (gumbel) is used in training only; indices are always those of Eq. 1.
        gumbel_temperature (`float`, defaults to 1.0): Temperature of the gumbel softmax, relative to the data's scale.
        pixel_weight, codebook_weight, commitment_weight, mim_weight, itm_weight, mlm_weight, itc_weight (`float`):
            Weights of the terms of Eq. 7 (`commitment_weight` is β of Eq. 3) and of the image-text contrastive loss,
            which the paper does not have (0 leaves it and its projections out). All terms are means (over tokens,
            dimensions or pixels), so that `pixel_weight` is larger than 1 by default: 3, which costs contrast less
            than 10 does, and reconstructs nearly as well (docs/study.md, on emoji).
        mim_cls_bag_weight (`float`, defaults to 0.0): Weight of one more term, which predicts from the query [CLS]
            alone which words are hidden, in whatever order (Fig. 1 speaks of "the cls token"; Eq. 4 is per token). 0
            leaves it and its head out.
        pixel_on (`"all"`, `"masked"` or `"both"`, defaults to `"all"`): What the pixel loss reconstructs from: all
            visual words, or those left by the mask (then scored on masked patches), or both.
        pixel_likelihood (`"gaussian"` or `"laplace"`, defaults to `"gaussian"`): p(x | z_q(x), l) of Eq. 3: squared or
            absolute errors.
        pixel_reduction (`"mean"` or `"sum_patch"`, defaults to `"mean"`): Mean over the pixels of a patch, or their
            sum, as a log-likelihood has it; always a mean over patches.
        pixel_sigma (`float`, *optional*): Scale σ of that likelihood: squared errors over 2 σ², absolute ones over σ.
            `None` leaves errors as they are.
        pixel_grad_to_vit (`bool`, defaults to `True`): Whether the pixel loss trains the image encoder through the
            visual words (Sec. IV-F).
        norm_pix_loss (`bool`, defaults to `False`): Whether each patch of the pixel target is normalised (MAE).
        mim_head (`"linear"` or `"tied"`, defaults to `"linear"`): Classifier over codes; `tied` scores by cosine with
            the codes themselves.
        mim_grad_to_vit (`bool`, defaults to `False`): Whether MIM trains the image encoder through the visible words.
            It makes codes more varied and their indices less stable, and recall no better (docs/study.md).
        mim_mask_stage (`"post"` or `"pre"`, defaults to `"post"`): Whether patches are hidden behind the image encoder
            (Sec. III-B), or before it: then a second pass of the image encoder, with a mask embedding in the place of
            hidden patches, gives the visible words; what is to be predicted still comes from the whole image.
        fusion_visual_pos (`"learned"` or `"none"`, defaults to `"learned"`): Positions of visual words when they ask.
            Without them (the paper names none) all hidden words of an image are the same question.
        fusion_visual_cls (`"learned"`, `"vit"` or `"none"`, defaults to `"learned"`): What stands before the visual
            words when they ask: a learned token, the image encoder's class token (never quantised), or nothing.
        itm_kv (`"continuous"`, `"quantized"` or `"both"`, defaults to `"continuous"`): What texts see of an image, in
            ITM, MLM and every model that asks images with texts: the image encoder's tokens, its class token and the
            visual words, or both (tokens first).
        negative_source (`"similarity"` or `"uniform"`, defaults to `"similarity"`): How ITM negatives are drawn in
            training.
        projection_dim (`int`, defaults to 256): Width of the contrastive embeddings.
        logit_scale_init_value (`float`, defaults to 2.6592): Logarithm of the initial 1 / temperature (ln 1/0.07).
        num_images (`int`, defaults to 2): Images per statement in visual reasoning.
        reasoning_fusion (`"separate"` or `"twin"`, defaults to `"separate"`): How visual reasoning fuses a statement
            with its images: with each on its own, all joint representations going into the classifier; or with two
            in turns, as ALBEF does, by twice as many fusion layers, of which two share keys and values.
        rerank_k (`int`, defaults to 0): How many of the most similar items matching orders anew when a
            `CBViLARetriever` searches and is not told; 0: similarity alone, which is cheap. `cbvila inspect` and the
            evaluation of `cbvila finetune retrieval` set it to what ranks better on what they measure.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.

    Example:

    ```python
    >>> from transformers_cbvila import CBViLAConfig

    >>> config = CBViLAConfig(vision_config={"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512})
    >>> config.fusion_config.encoder_hidden_size
    128
    >>> CBViLAConfig.from_preset("paper").codebook_dim
    768

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
        "mlm_logits",
        "mim_logits",
        "pixel_predictions",
        "question_hidden_states",
    ]

    # a dict or nothing on the way in, a configuration afterwards
    vision_config: Any = None
    text_config: Any = None
    fusion_config: Any = None
    preset: str = "recommended"
    codebook_size: int = 3000
    codebook_dim: int | None = 32
    codebook_norm: str = "l2"
    codebook_update: str = "ema"
    codebook_decay: float = 0.99
    quantizer_gradient: str = "straight_through"
    gumbel_temperature: float | int = 1.0
    pixel_weight: float | int = 3.0
    codebook_weight: float | int = 1.0
    commitment_weight: float | int = 1.0
    mim_weight: float | int = 1.0
    itm_weight: float | int = 1.0
    mlm_weight: float | int = 1.0
    itc_weight: float | int = 1.0
    mim_cls_bag_weight: float | int = 0.0
    pixel_on: str = "all"
    pixel_likelihood: str = "gaussian"
    pixel_reduction: str = "mean"
    pixel_sigma: float | int | None = None
    pixel_grad_to_vit: bool = True
    norm_pix_loss: bool = False
    mim_head: str = "linear"
    mim_grad_to_vit: bool = False
    mim_mask_stage: str = "post"
    fusion_visual_pos: str = "learned"
    fusion_visual_cls: str = "learned"
    itm_kv: str = "continuous"
    negative_source: str = "similarity"
    projection_dim: int = 256
    logit_scale_init_value: float = 2.6592
    num_images: int = 2
    reasoning_fusion: str = "separate"
    rerank_k: int = 0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        if "use_cache" in kwargs:
            raise ValueError(
                f"use_cache={shown(kwargs['use_cache'])} of the whole model: the cache is the answer decoder's. Set "
                "it in text_config, or in the model's generation_config."
            )
        self.vision_config = _as_config("vision_config", self.vision_config)
        self.text_config = _as_config("text_config", self.text_config)
        self.fusion_config = _as_config("fusion_config", self._complete_fusion(self.fusion_config))
        if self.codebook_dim is None:
            self.codebook_dim = self.vision_config.hidden_size
        refuse_misspelt(kwargs, type(self))
        self.check()
        said = {name: kwargs.pop(name, None) for name in ("num_labels",)}
        said |= {name: getattr(self, name) for name in ("id2label", "label2id")}
        nobodys = both_fields(dict, generic_names(2))
        self.__dict__.update(nobodys)
        super().__post_init__(**kwargs)
        self.__dict__.update(nobodys)  # transformers sets them, too, as if somebody chose
        self._choose_classes({name: value for name, value in said.items() if value is not None})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CLASS_FIELDS and value is not None:
            value = ChosenClasses.of(name, value)
        super().__setattr__(name, value)

    @property
    def num_labels(self) -> int:
        """Number of classes of the heads that classify."""
        return len(self.id2label or ())

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        names = generic_names(number)
        self.__dict__.update(
            both_fields(ChosenClasses, self.id2label.values() if number == self.num_labels else names)
        )

    def _choose_classes(self, said: dict[str, Any]) -> None:
        """Takes over what somebody says of the classes: `num_labels`, `id2label`, `label2id`, or several of them."""
        require_one_story(said)
        for name in ("num_labels", "id2label", "label2id"):
            if name in said and not (name == "num_labels" and len(said) > 1):
                setattr(self, name, said[name])

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs):
        """A configuration from what a file holds, with `kwargs`, what the caller says, over it.

        The two are told apart for classes: those of a file are its model's, and a head of another kind has its own.

        Raises:
            ValueError: If an option of the caller is misspelt, or his classes contradict each other.
        """
        refuse_misspelt(kwargs, cls)
        for name, config_class in _SUB_CONFIGS.items():
            if kwargs.get(name) is not None:
                check_part(name, kwargs[name])
            if isinstance(kwargs.get(name), dict):
                refuse_misspelt(kwargs[name], config_class)
        said = {name: kwargs.pop(name) for name in ("num_labels", *CLASS_FIELDS) if kwargs.get(name) is not None}
        # the `use_cache` of an older checkpoint is Trainer's, see `to_dict`
        loaded = super().from_dict({k: v for k, v in config_dict.items() if k != "use_cache"}, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        config.__dict__.update({name: dict(getattr(config, name) or {}) for name in CLASS_FIELDS})
        config._choose_classes(said)
        return loaded

    def check(self) -> None:
        """Raises a ValueError for values that no model can have.

        Models ask again: `from_pretrained` and people change values of a configuration that was fine when it was made.
        """
        for name, config_class in _SUB_CONFIGS.items():
            if not isinstance(getattr(self, name), config_class):
                raise ValueError(f"{name} is {shown(getattr(self, name))}; expected a {config_class.__name__}.")
            getattr(self, name).check()
        self._check_choices()
        self._check_widths()
        self._check_numbers()
        self._check_combinations()

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> "CBViLAConfig":
        """A configuration that starts from a preset.

        Args:
            name: `"recommended"`, or `"paper"` for the literal reading of the paper, which may collapse.
            kwargs: Any field, taking precedence over the preset.

        Raises:
            ValueError: If there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset {shown(name)}: choose one of {', '.join(sorted(PRESETS))}.")
        return cls(**{**PRESETS[name], "preset": name, **kwargs})

    # Trainer writes `use_cache` on every configuration, False by default: its own choice while it trains, which would
    # have a trained model generate without a cache for ever.
    def to_dict(self) -> dict[str, Any]:
        """As of [`~transformers.PreTrainedConfig`]; without a `use_cache` of the whole model."""
        return {name: value for name, value in super().to_dict().items() if name != "use_cache"}

    @property
    def has_contrastive_head(self) -> bool:
        """Whether the model has the projections and the temperature of the contrastive loss."""
        return self.itc_weight > 0

    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss term by name (the fields of [`CBViLALosses`])."""
        terms = ("pixel", "codebook", "commitment", "mim", "itm", "mlm", "itc", "mim_cls_bag")
        return {term: float(getattr(self, f"{term}_weight")) for term in terms}

    def _complete_fusion(self, fusion: dict | PreTrainedConfig | None) -> dict | PreTrainedConfig:
        if isinstance(fusion, PreTrainedConfig):
            return fusion
        if fusion is not None:
            check_part("fusion_config", fusion)
        followed = {name: getattr(self.text_config, name) for name in _FUSION_FOLLOWS_TEXT}
        return {**followed, "encoder_hidden_size": self.vision_config.hidden_size, **(fusion or {})}

    def _check_choices(self) -> None:
        choices = {
            "codebook_norm": CodebookNorm,
            "codebook_update": CodebookUpdate,
            "quantizer_gradient": QuantizerGradient,
            "mim_head": MIMHead,
            "pixel_on": PixelOn,
            "pixel_likelihood": PixelLikelihood,
            "pixel_reduction": PixelReduction,
            "negative_source": NegativeSource,
            "mim_mask_stage": MIMMaskStage,
            "fusion_visual_pos": FusionVisualPos,
            "fusion_visual_cls": FusionVisualCls,
            "itm_kv": ITMKeys,
            "reasoning_fusion": ReasoningFusion,
        }
        for field, literal in choices.items():
            value, allowed = getattr(self, field), get_args(literal)
            if value not in allowed:
                raise ValueError(f"{field}={shown(value)} is not one of {', '.join(map(repr, allowed))}.")

    def _check_widths(self) -> None:
        fusion, text, vision = self.fusion_config, self.text_config, self.vision_config
        if fusion.hidden_size != text.hidden_size:
            raise ValueError(
                f"fusion_config.hidden_size ({fusion.hidden_size}) must equal text_config.hidden_size "
                f"({text.hidden_size}); leave it out to have it follow."
            )
        if fusion.encoder_hidden_size != vision.hidden_size:
            raise ValueError(
                f"fusion_config.encoder_hidden_size ({fusion.encoder_hidden_size}) must equal "
                f"vision_config.hidden_size ({vision.hidden_size}); leave it out to have it follow."
            )

    def _check_numbers(self) -> None:
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size={self.codebook_size}: a codebook needs at least 2 codes.")
        if not self.codebook_dim or self.codebook_dim < 1:
            raise ValueError(f"codebook_dim={self.codebook_dim} must be positive, or None for the vision width.")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"codebook_decay={self.codebook_decay} must be in [0, 1).")
        if not 0 < self.gumbel_temperature < inf:
            raise ValueError(f"gumbel_temperature={self.gumbel_temperature} must be above 0.")
        if self.pixel_sigma is not None and not 0 < self.pixel_sigma < inf:
            raise ValueError(f"pixel_sigma={self.pixel_sigma} must be above 0, or None for errors as they are.")
        if not isfinite(self.logit_scale_init_value):
            raise ValueError(f"logit_scale_init_value={self.logit_scale_init_value} must be a finite number.")
        if self.num_images < 1:
            raise ValueError(f"num_images={self.num_images} must be positive.")
        if self.rerank_k < 0:
            raise ValueError(f"rerank_k={self.rerank_k} must be 0 (similarity alone) or more.")
        if self.projection_dim < 1:
            raise ValueError(f"projection_dim={self.projection_dim} must be positive.")
        for term, weight in self.loss_weights().items():
            if not 0 <= weight < inf:
                raise ValueError(
                    f"{term}_weight={weight} is negative or not finite: a loss weight is 0 (off) or more."
                )

    def _check_combinations(self) -> None:
        if self.mim_cls_bag_weight > 0 and self.fusion_visual_cls == "none":
            raise ValueError(
                f"mim_cls_bag_weight={self.mim_cls_bag_weight} asks the query [CLS], which fusion_visual_cls='none' "
                "leaves out: choose 'learned' or 'vit', or a weight of 0."
            )
        if self.reasoning_fusion == "twin" and self.num_images != 2:
            raise ValueError(
                f"reasoning_fusion='twin' asks two images in turns and num_images={self.num_images}: choose "
                "'separate' for other numbers of images."
            )
        if self.itm_kv != "continuous" and not self.pixel_grad_to_vit:
            raise ValueError(
                f"itm_kv={self.itm_kv!r} shows texts the words that the pixel loss is asked with, whose gradients "
                "pixel_grad_to_vit=False cuts: leave one of both at its default."
            )


def check_part(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` can be the configuration of an encoder."""
    if not isinstance(value, dict | PreTrainedConfig):
        expected = f"a {_SUB_CONFIGS[name].__name__} or a dictionary of its fields"
        raise ValueError(f"{name} is {shown(value)}; expected {expected}.")


def _as_config(name: str, value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    config_class = _SUB_CONFIGS[name]
    if value is None:
        return config_class()
    check_part(name, value)
    return config_class(**value) if isinstance(value, dict) else value


__all__ = ["CBViLAConfig", "CBViLAFusionConfig", "CBViLATextConfig", "CBViLAVisionConfig"]
