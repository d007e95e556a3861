"""The projector of BLIP-2's second stage (arXiv 2301.12597): a Q-Former whose queries become token embeddings."""

from typing import Any

from torch import Tensor, nn

from .configuration_cbvila_qformer import CBViLAQFormerConfig
from .encoder_configurations_cbvila import CBViLAVisionConfig
from .options_cbvila import options
from .projector_cbvila import CBViLAProjector, CBViLAProjectorOptions

_ROUNDING = 1e-2  # of weights in half precision; image encoders that were trained apart differ by more


@options
class CBViLAQFormerProjectorOptions(CBViLAProjectorOptions):
    """Options of the Q-Former, as in [`CBViLAQFormerConfig`], whose `projector_config()` has those of a checkpoint.

    Args:
        num_query_tokens: Number k of queries, each of which is a token of the language model's input.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, hidden_act, hidden_dropout_prob,
        attention_probs_dropout_prob, layer_norm_eps, initializer_range, cross_attention_frequency: as in
            [`CBViLAQFormerConfig`].
    """

    num_query_tokens: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    cross_attention_frequency: int = 2

    def check(self, where: str) -> None:
        """Raises a ValueError for values of the right type that are out of range."""
        try:
            self.qformer_config(width=1)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{CBViLAQFormerConfig.base_config_key}:", f"{where}:")) from None

    def qformer_config(self, width: int) -> CBViLAQFormerConfig:
        """Returns the configuration of the Q-Former on image tokens of a width; it has no image encoder of its own."""
        vision = CBViLAVisionConfig(hidden_size=width, num_attention_heads=1, num_hidden_layers=0)
        return CBViLAQFormerConfig(
            vision_config=vision, **{name: value for name, value in self.to_dict().items() if name != "type"}
        )


class CBViLAQFormerProjector(CBViLAProjector):
    """A Q-Former without text, and a linear map of its queries' states; all of it is trained."""

    name = "qformer"
    options_class = CBViLAQFormerProjectorOptions

    def __init__(self, options: Any, width: int, language_width: int) -> None:
        super().__init__(options, width, language_width)
        # Here, as configurations import projectors, and models import configurations.
        from .modeling_cbvila_qformer import CBViLAQFormerModel

        self.qformer = CBViLAQFormerModel(options.qformer_config(width), add_text=False)
        self.linear = nn.Linear(options.hidden_size, language_width)

    @classmethod
    def num_tokens(cls, options: Any) -> int:
        """Returns the number k of tokens that an image takes in the language model's input."""
        return options.num_query_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Projects image tokens (b, 1 + n, D) to rows (b, k, D') for the language model."""
        return self.linear(self.qformer(encoder_hidden_states=tokens).last_hidden_state)

    def start_from(self, checkpoint: str, vision_tower: nn.Module) -> None:
        """Loads the Q-Former of a checkpoint of stage 1; the linear map is new.

        Args:
            checkpoint: A folder, or a repository of the Hub, of a [`CBViLAForQFormerPreTraining`], or of a
                [`CBViLAQFormerModel`], which has no image encoder.
            vision_tower: The image encoder, which must be the one that the Q-Former was trained on.

        Raises:
            ValueError: If it is no such checkpoint, of other sizes, or of another image encoder.
        """
        start = type(self.qformer).from_pretrained(checkpoint, add_text=False)
        width, sizes = start.config.vision_config.hidden_size, start.config.projector_config()
        if width != self.width:
            raise ValueError(
                f"{checkpoint} reads image tokens {width} wide, and those of this vision tower are {self.width} wide: "
                "give the model whose image encoder it was trained on."
            )
        weights = start.state_dict()
        own = self.qformer.state_dict()
        if {name: value.shape for name, value in weights.items()} != {name: v.shape for name, v in own.items()}:
            raise ValueError(f"{checkpoint} has other sizes than the projector: projector_config={sizes} has its own.")
        _check_image_encoder(checkpoint, start.config, vision_tower)
        self.qformer.load_state_dict(weights)


def _check_image_encoder(checkpoint: str, config: CBViLAQFormerConfig, vision_tower: nn.Module) -> None:
    """Raises a ValueError if a Q-Former was trained on an image encoder with other weights."""
    from .modeling_cbvila_qformer_pretraining import CBViLAForQFormerPreTraining

    if CBViLAForQFormerPreTraining.__name__ not in (config.architectures or ()):
        return  # a Q-Former alone, such as a converted one
    own = vision_tower.state_dict()
    trained_on = CBViLAForQFormerPreTraining.from_pretrained(checkpoint).vision_model.state_dict()
    if own.keys() != trained_on.keys():
        raise ValueError(
            f"{checkpoint} was trained on another image encoder (with {len(trained_on)} weights, and this one has "
            f"{len(own)}): give the model that it was trained on."
        )
    for name, value in trained_on.items():
        if value.shape != own[name].shape:
            continue  # position embeddings of another image size
        difference = float((own[name].float() - value.float()).abs().max())
        if difference > _ROUNDING:
            raise ValueError(
                f"{checkpoint} was trained on another image encoder ({name} differs by up to {difference:.3g}): give "
                "the model that it was trained on."
            )
