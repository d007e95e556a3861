"""LG-VQ (arXiv 2405.14206): aligns quantized tokens with features of their captions, in three terms.

The semantic term compares whole images with whole captions. The masked-text term predicts masked words from quantized
tokens. The relation term makes the quantized tokens that belong to two words as similar as the words.

Text features come from a pretrained encoder that the options name. Without one they are those of the momentum encoder
or, if there is none, the model's own, detached: a weaker prior, as they know no more than the captions.

Shapes: b local pairs, B pairs of all processes, N patches, L text tokens, M masked words, Dv vision width, E width of
text features, V vocabulary.
"""

from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers import initialization as init

from .autocast_cbvila import without_autocast
from .losses_cbvila import at_least_fp32, masked_rows, take_rows
from .messages_cbvila import shown_error
from .objective_cbvila import Answer, CBViLAObjective, CBViLAObjectiveOptions, CBViLAStep, Scored
from .options_cbvila import options, require_range
from .quantizer_cbvila import CBViLAQuantizer

_LAYERS = 2
_EPSILON = 1e-6  # added to the sum of the semantic term, as in the official code


@options
class CBViLALGVQOptions(CBViLAObjectiveOptions):
    """Options of [`CBViLALGVQ`].

    Args:
        weight: Factor of the weights of all three terms.
        semantic_weight, masked_text_weight, relation_weight: Weights of the terms, by default those for TextCaps.
        temperature: Temperature of the semantic term. At 1, as in the official code, its range is small.
        label_smoothing: Label smoothing of the masked-text term.
        relation_mean: Whether the relation term is a mean over all pairs of tokens, padding included (`"all"`, as in
            the official code), or over pairs of words (`"words"`).
        grad_to_vit: Whether the terms train the image encoder.
        text_encoder: Folder or Hub id of a text encoder with the model's vocabulary, loaded by `AutoModel` when
            training begins. It is no part of the model: neither trained nor saved, and a checkpoint loads without it.
        text_size: Width E of its features, read from its configuration when absent.
    """

    sources: ClassVar[tuple[str, ...]] = ("text_encoder",)

    semantic_weight: float | int = 0.001
    masked_text_weight: float | int = 0.01
    relation_weight: float | int = 0.0001
    temperature: float | int = 1.0
    label_smoothing: float | int = 0.1
    relation_mean: Literal["all", "words"] = "all"
    grad_to_vit: bool = True
    text_encoder: str | None = None
    text_size: int | None = None

    def check(self, where: str) -> None:
        """Raises a ValueError for values out of range."""
        super().check(where)
        for name in ("semantic_weight", "masked_text_weight", "relation_weight"):
            require_range(where, name, getattr(self, name), 0)
        require_range(where, "temperature", self.temperature, 0, above=True)
        require_range(where, "label_smoothing", self.label_smoothing, 0, 1)
        if self.text_size is not None:
            require_range(where, "text_size", self.text_size, 1)
            if self.text_encoder is None:
                raise ValueError(
                    f"{where}: text_size={self.text_size} is the width of a text_encoder, and none is named: the "
                    "model's own features have the width of its text encoder. Name one, or leave both out."
                )
        if self.relation_weight > 0 and not (self.semantic_weight > 0 or self.masked_text_weight > 0):
            raise ValueError(
                f"{where}: relation_weight={self.relation_weight} needs a weight of the semantic or the masked-text "
                "term, which train the features by which it finds the patches of a word."
            )


class TextFeatures(NamedTuple):
    """Features of captions, without gradient.

    Args:
        tokens: (b, L, E).
        sentences: (b, E), the means over the tokens of each caption.
        embeddings: (V, E) embeddings of the vocabulary.
    """

    tokens: Tensor
    sentences: Tensor
    embeddings: Tensor

    @classmethod
    def of(cls, tokens: Tensor, mask: Tensor, embeddings: Tensor) -> "TextFeatures":
        """Creates features from states (b, L, E) with their mask (b, L), and embeddings (V, E)."""
        tokens, weights = at_least_fp32(tokens.detach()), mask.unsqueeze(-1)
        sentences = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1)
        return cls(tokens, sentences, embeddings.detach())


class CBViLAFrozenTextEncoder:
    """A pretrained text encoder beside a model, which loads it at first use and neither trains nor saves it.

    Args:
        name: Folder or Hub id.
        vocab_size: Size of the model's vocabulary, which must be the encoder's.

    Raises:
        ValueError: When it is used, if it cannot be loaded or has another vocabulary.
    """

    def __init__(self, name: str, vocab_size: int) -> None:
        self.name, self.vocab_size = name, vocab_size
        self._model: Any = None

    def __deepcopy__(self, memo: dict) -> "CBViLAFrozenTextEncoder":
        """Returns itself: copies of a model share what is frozen."""
        return self

    @property
    def hidden_size(self) -> int:
        """Width E of its features."""
        config = self._load(AutoConfig)
        if config.vocab_size != self.vocab_size:
            raise ValueError(
                f"text_encoder={self.name!r} has a vocabulary of {config.vocab_size} tokens, and the model one of "
                f"{self.vocab_size}: they must be the same. Train with its tokenizer (tokenizer={self.name!r} of "
                "`cbvila pretrain`), or leave text_encoder out, which takes the features of the model's own encoder."
            )
        return config.hidden_size

    @torch.compiler.disable
    @torch.no_grad()
    def __call__(self, input_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns states (b, L, E) of texts (b, L), and the embeddings (V, E) of the vocabulary."""
        if self._model is None:
            _ = self.hidden_size  # which checks the vocabulary
            self._model = self._load(AutoModel).float().eval().requires_grad_(False)
        model = self._model.to(input_ids.device)
        states = model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return states, model.get_input_embeddings().weight

    def _load(self, auto_class: Any) -> Any:
        try:
            return auto_class.from_pretrained(self.name)
        except (OSError, ValueError, ImportError) as error:
            raise ValueError(
                f"text_encoder={self.name!r} cannot be loaded ({shown_error(error)}): name the folder or Hub id of a "
                "text encoder with weights, or leave it out, which takes the features of the model's own encoder."
            ) from error


class CBViLACodeTransformer(nn.Module):
    """Maps quantized tokens to the space of text features, by two pre-norm layers with a class token.

    Args:
        width: Dv.
        size: E.
        patches: N.
    """

    def __init__(self, width: int, size: int, patches: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + patches, size))
        self.layernorm = nn.LayerNorm(size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(**_layer_options(size), norm_first=True) for _ in range(_LAYERS)
        )

    def init_own_weights(self, std: float) -> None:
        """Initializes class token and positions."""
        init.normal_(self.cls_token, std=0.01)
        init.normal_(self.position_embeddings, std=0.01)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Maps quantized tokens (b, N, Dv) to a feature (b, E) of each image and features (b, N, E) of its patches."""
        if words.shape[1] + 1 != self.position_embeddings.shape[1]:
            raise ValueError(
                f"LG-VQ has positions for {self.position_embeddings.shape[1] - 1} patches, and the images have "
                f"{words.shape[1]}: train on images of the configured size."
            )
        cls = self.cls_token.expand(words.shape[0], -1, -1)
        states = self.layernorm(torch.cat([cls, self.projection(words)], dim=1) + self.position_embeddings)
        for layer in self.layers:
            states = layer(states)
        return states[:, 0], states[:, 1:]


class CBViLAMaskedTextDecoder(nn.Module):
    """Predicts masked words by two layers in which the words of a caption attend to patches.

    Args:
        size: E.
        vocab_size: V.
    """

    def __init__(self, size: int, vocab_size: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size))
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(**_layer_options(size)) for _ in range(_LAYERS))
        self.head = _head(size, size)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def init_own_weights(self, std: float) -> None:
        """Initializes the mask token and the bias."""
        init.normal_(self.mask_token, std=std)
        init.zeros_(self.bias)

    def forward(self, text: TextFeatures, mask: Tensor, masked_words: Tensor, patches: Tensor) -> Tensor:
        """Returns logits (M, V) for the masked words (b, L) of captions with mask (b, L), from patches (b, N, E)."""
        states = torch.where(masked_words.unsqueeze(-1), self.mask_token, text.tokens.to(self.mask_token.dtype))
        states = states * mask.unsqueeze(-1)
        for layer in self.layers:
            states = layer(states, patches, tgt_key_padding_mask=~mask)
        states = self.head(take_rows(states, masked_rows(masked_words)))
        return F.linear(states, text.embeddings.to(states.dtype), self.bias)


class CBViLALGVQ(CBViLAObjective):
    """Semantic, masked-text and relation alignment of quantized tokens; in training only, as in the official code."""

    name = "lgvq"
    options_class = CBViLALGVQOptions
    phase = "stable"
    needs = frozenset({"quantizer", "text_features", "masked_words"})

    def __init__(self, options: CBViLALGVQOptions, config: Any, quantizer: CBViLAQuantizer | None = None) -> None:
        super().__init__(options, config, quantizer)
        text, vision = config.text_config, config.vision_config
        special = (text.pad_token_id, text.bos_token_id, text.end_token_id)
        self.special_ids = [number for number in special if number is not None]
        self.encoder = None
        size = text.hidden_size
        if options.text_encoder is not None:
            self.encoder = CBViLAFrozenTextEncoder(options.text_encoder, text.vocab_size)
            if options.text_size is None:
                options.text_size = self.encoder.hidden_size  # saved: a checkpoint loads without the encoder
            size = options.text_size
        self.transformer = CBViLACodeTransformer(vision.hidden_size, size, vision.num_patches)
        self.decoder = CBViLAMaskedTextDecoder(size, text.vocab_size) if options.masked_text_weight > 0 else None
        self.relation = _head(vision.hidden_size, size) if options.relation_weight > 0 else None

    @classmethod
    def loss_weights(cls, options: Any) -> dict[str, float]:
        """Returns the weights of the three terms."""
        return {
            f"{cls.name}_{term}": float(options.weight * getattr(options, f"{term}_weight"))
            for term in ("semantic", "masked_text", "relation")
        }

    @classmethod
    def check_with(cls, options: Any, config: Any) -> None:
        """Raises a ValueError if no tokens train the image encoder, or all do, against `grad_to_vit`."""
        tokens = "quantized" if options.grad_to_vit else "detached"
        if options.weight > 0 and config.trains_encoder(tokens) != options.grad_to_vit:
            raise ValueError(
                f"objectives[{cls.name!r}]: grad_to_vit={options.grad_to_vit} reads the tokens of another objective "
                f"(pixels or, with False, masked patches) whose grad_to_vit is {not options.grad_to_vit}: set both to "
                "the same value."
            )

    def forward(self, step: CBViLAStep, answers: list[Answer]) -> dict[str, Scored]:
        """Computes the terms, in training."""
        if not step.training or step.word_embeddings is None:
            return {}
        mask = torch.ones_like(step.input_ids) if step.attention_mask is None else step.attention_mask
        mask = mask.bool()
        text = self._text_features(step, mask)
        words = step.quantized.quantized if self.options.grad_to_vit else step.quantized.detached
        words = words.to(self.transformer.cls_token.dtype)
        images, patches = self.transformer(words)
        terms = {"semantic": Scored(self._semantic(step, images, text.sentences))}
        if self.decoder is not None and step.masked_words is not None:
            masked = step.masked_words.bool() & mask
            logits = self.decoder(text, mask, masked, patches)
            labels = take_rows(step.input_ids, masked_rows(masked))
            terms["masked_text"] = Scored(masked_text_loss(logits, labels, self.options.label_smoothing), masked)
        if self.relation is not None:
            chosen = best_patches(text.tokens, patches).unsqueeze(-1).expand(-1, -1, words.shape[-1])
            terms["relation"] = Scored(self._relation(step, self.relation(words.gather(1, chosen)), text, mask))
        return {f"{self.name}_{term}": scored for term, scored in terms.items()}

    def _text_features(self, step: CBViLAStep, mask: Tensor) -> TextFeatures:
        """Returns the features of the captions from the best source that there is."""
        if self.encoder is not None:
            states, embeddings = self.encoder(step.input_ids, mask)
        elif step.momentum is not None and step.momentum.texts is not None:
            states, embeddings = step.momentum.texts
        else:
            states, embeddings = step.texts, step.word_embeddings
        return TextFeatures.of(states, mask, embeddings)

    def _relation(self, step: CBViLAStep, states: Tensor, text: TextFeatures, mask: Tensor) -> Tensor:
        """Compares the states (b, L, E) of patches with words: the tokens of a mask (b, L), but not special ones."""
        words = mask & ~torch.isin(step.input_ids, torch.tensor(self.special_ids, device=mask.device))
        if self.options.relation_mean == "words":
            return relation_loss(states, text.tokens, words)
        # Captions of other processes may be padded to another length.
        length = mask.shape[1] if step.processes is None else step.processes.length
        return relation_loss(states, text.tokens, words, pairs=length**2)

    def _semantic(self, step: CBViLAStep, images: Tensor, sentences: Tensor) -> Tensor:
        """Compares the local images (b, E) with the captions (b, E) of all processes."""
        first = 0
        if step.processes is not None:
            sentences, first = step.processes.gather(sentences), step.processes.first
        return semantic_loss(images, sentences, first, self.options.temperature)


@without_autocast
def semantic_loss(images: Tensor, sentences: Tensor, first: int = 0, temperature: float = 1.0) -> Tensor:
    """Computes the contrastive loss of images (b, E) with captions (B, E), whose own are those from `first` on."""
    images, sentences = at_least_fp32(images), at_least_fp32(sentences)
    logits = F.normalize(images, dim=-1) @ F.normalize(sentences, dim=-1).T / temperature
    own = logits.diagonal(first)[: images.shape[0]]
    total = torch.logaddexp(logits.logsumexp(-1), logits.new_tensor(_EPSILON).log())
    return (total - own).mean()


def masked_text_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Computes the mean cross-entropy of logits (M, V) with labels (M,); 0 without any."""
    total = F.cross_entropy(at_least_fp32(logits), labels, reduction="sum", label_smoothing=label_smoothing)
    return total / max(1, labels.shape[0])


@torch.no_grad()
def best_patches(words: Tensor, patches: Tensor) -> Tensor:
    """Returns, for words (b, L, E), the indices (b, L) of the most similar patches (b, N, E) of their image."""
    words, patches = F.normalize(words, dim=-1), F.normalize(at_least_fp32(patches), dim=-1)
    return (words @ patches.transpose(1, 2).to(words.dtype)).argmax(-1)


@without_autocast
def relation_loss(states: Tensor, words: Tensor, mask: Tensor, pairs: int | None = None) -> Tensor:
    """Computes the mean squared difference of the similarities of states (b, L, E) and of words (b, L, E).

    Args:
        states: (b, L, E) states of the patches that belong to the words.
        words: (b, L, E) features of the words; they get no gradient.
        mask: (b, L) bool, which tokens are words.
        pairs: Number of pairs of tokens of a text that the mean is over; by default its pairs of words.
    """
    shown = mask.unsqueeze(-1)
    states = F.normalize(at_least_fp32(states), dim=-1) * shown
    words = F.normalize(at_least_fp32(words.detach()), dim=-1) * shown
    errors = (states @ states.transpose(1, 2) - words @ words.transpose(1, 2)).square().sum((1, 2))
    counts = mask.sum(1).square().clamp_min(1) if pairs is None else pairs
    return (errors / counts).mean()


def _layer_options(size: int) -> dict[str, Any]:
    """Returns the options of layers of width `size` with one head and no dropout."""
    sizes = {"d_model": size, "nhead": 1, "dim_feedforward": 4 * size}
    return {**sizes, "dropout": 0.0, "activation": "gelu", "batch_first": True}


def _head(width: int, size: int) -> nn.Sequential:
    """Returns a projection from `width` to `size` with GELU and LayerNorm."""
    return nn.Sequential(nn.Linear(width, size), nn.GELU(), nn.LayerNorm(size))
