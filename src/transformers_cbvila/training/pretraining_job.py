"""What `cbvila pretrain` is told of data, model and corruption."""

import json
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..data import option_texts
from ..data.collators import check_corruption
from ..data.column_names import LABEL_MAP_COLUMNS
from ..data.given_options import refuse_without
from ..data.label_maps import LabelMaps
from ..data.mixing import check_weights
from ..model.messages_cbvila import shown
from .pretraining_evaluation import EvaluationOptions
from .view_options import ViewOptions

CHECKED_ROWS = 1000  # of a stream, whose captions are checked for unknown tokens
Head = Literal["cbvila", "qformer"]
# Options of CB-ViLA's own objectives, and of weights that start at random, which a Q-Former's training has none of.
NOT_OF_QFORMERS = (
    *("preset", "tokenizer", "vocab_size", "mlm_probability", "mlm_replace", "mlm_words", "mlm_words_share"),
    *(
        "mim_mask_ratio",
        "mim_mask_schedule",
        "text_drop_prob",
        "label_map_column",
        "label_model",
        "label_share",
        "eval_rerank_k",
    ),
)


@dataclass
class PretrainingJob(EvaluationOptions, ViewOptions):
    """Data, model and corruption of pretraining; the rest is [`CBViLATrainingArguments`]."""

    train_data: list[str] = field(metadata={"help": f"{option_texts.SOURCES}; several are mixed."})
    train_data_weights: list[float] = field(
        default_factory=list,
        metadata={
            "help": "How often rows of each of train_data come, relative to each other: '2 1' takes two of the first "
            "for one of the second, whatever their sizes, and a pass ends when every row has come. Without, every row "
            "comes once in a pass; a stream takes rows of each in turn, so that the largest is alone in the end."
        },
    )
    train_split: str = field(default="train", metadata={"help": option_texts.TRAIN_SPLIT})
    image_column: str = field(default="image", metadata={"help": option_texts.IMAGE_COLUMN})
    caption_column: str | None = field(default=None, metadata={"help": option_texts.CAPTION_COLUMN})
    keyword_columns: list[str] = field(
        default_factory=list, metadata={"help": "Columns with keywords, some of which are added to the caption."}
    )
    label_map_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with label maps, images with the number of a class in each pixel, for quantizers and "
            "objectives that use classes of patches (docs/codebooks.md); "
            f"default: {' or '.join(LABEL_MAP_COLUMNS)}, where there is one. scenes have maps of their own."
        },
    )
    label_model: str | None = field(
        default=None,
        metadata={
            "help": "Segmentation model (folder or Hub id) whose classes take the place of label maps. It runs on the "
            "CPU in the loader, on every image in every pass."
        },
    )
    label_share: float = field(
        default=1.0, metadata={"help": "Share of the images whose classes are used; others count as unknown."}
    )
    skip_bad_rows: bool = field(
        default=False,
        metadata={
            "help": "Let another row take the place of one with a missing or broken image, and leave out rows whose "
            "caption is not a text; they are counted. Without, such a row is an error that names it."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the data as a stream, without a copy on disk; needs max_steps. Each process and loader "
            "worker reads its own files if their number divides evenly."
        },
    )
    shuffle_buffer: int = field(
        default=1000, metadata={"help": "Rows of a stream from which the next one is drawn, per loader worker."}
    )
    head: Head = field(
        default="cbvila",
        metadata={
            "help": "What is pretrained: cbvila, all of the model; or qformer, BLIP-2's first stage, in which queries "
            "learn to read the frozen image encoder of `model` (docs/qformer.md)."
        },
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to start from (folder, Hub id, or the name of a bundled one, cbvila-tiny), with its "
            "tokenizer and configuration except for what model_config names; without it, random weights."
        },
    )
    model_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fields of CBViLAConfig (of CBViLAQFormerConfig for the head qformer), which replace a "
            "checkpoint's if there is one (JSON on the command line, a mapping in a recipe)."
        },
    )
    preset: str = field(
        default="recommended",
        metadata={
            "help": "Preset of random weights: recommended, paper (its literal reading), albef or codis (no codebook)."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a BERT tokenizer, or the name of a bundled checkpoint that has one, for "
            "random weights; without, a vocabulary is trained."
        },
    )
    vocab_size: int = field(
        default=4000, metadata={"help": "Size of the WordPiece vocabulary trained on the texts, for random weights."}
    )
    max_length: int = field(default=30, metadata={"help": "Longest caption in tokens; longer ones are cut."})
    mlm_probability: float = field(default=0.15, metadata={"help": "Share of tokens to predict."})
    mlm_replace: float = field(
        default=0.8, metadata={"help": "Share of those that become [MASK]: 0.8 as in BERT, 1.0 as the paper writes."}
    )
    mlm_words: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Words that these tokens are chosen from, in captions with any of them: a word that is masked "
            "beside visible names has to be looked up in the image."
        },
    )
    mlm_words_share: float = field(default=1.0, metadata={"help": "Share of captions that --mlm_words holds for."})
    mim_mask_ratio: float = field(default=0.75, metadata={"help": "Share of patches to hide."})
    mim_mask_schedule: str = field(
        default="fixed",
        metadata={
            "help": "Whether that share is hidden in every image (fixed), or a share that is drawn for each (cosine), "
            "which a model needs to draw images from nothing."
        },
    )
    text_drop_prob: float = field(
        default=0.0, metadata={"help": "How often pixels and visual words are predicted with an empty caption."}
    )
    keyword_probability: float = field(default=0.5, metadata={"help": "How often keywords are added."})

    def __post_init__(self) -> None:
        if isinstance(self.model_config, str):
            self.model_config = _parsed(self.model_config)
        if not self.train_data:
            raise ValueError("train_data is empty; name at least one folder, file or data set.")
        check_weights(self.train_data_weights, len(self.train_data))
        _ = self.views  # raises early
        refuse_without(self, "keyword_columns", ["keyword_probability"])
        check_corruption(self)
        self.check_head()
        self.check_labels()
        self.check_evaluation()

    def check_head(self) -> None:
        """Raises a ValueError for a head that there is not, and for options that a Q-Former's training has not."""
        if self.head not in get_args(Head):
            raise ValueError(f"head={shown(self.head)} is none of {', '.join(get_args(Head))}.")
        if self.head != "qformer":
            return
        if self.model is None:
            raise ValueError("head='qformer' reads a trained image encoder: name a checkpoint that has one as model.")
        plain = PretrainingJob(train_data=self.train_data)
        for name in NOT_OF_QFORMERS:
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(
                    f"{name}={shown(getattr(self, name))} is an option of CB-ViLA's own pretraining and changes "
                    "nothing with head='qformer': leave it out."
                )

    def check_labels(self) -> None:
        """Raises a ValueError for options of label maps that contradict each other."""
        if self.label_map_column is not None and self.label_model is not None:
            raise ValueError(
                f"label_map_column={shown(self.label_map_column)} and label_model={shown(self.label_model)} both "
                "give the classes of patches: leave one of them out."
            )
        _ = LabelMaps(share=self.label_share)  # raises for a share out of range


def _parsed(model_config: str) -> dict:
    try:
        fields = json.loads(model_config)
    except json.JSONDecodeError as error:
        raise ValueError(f"model_config={shown(model_config)} is no JSON ({error}).") from None
    if not isinstance(fields, dict):
        raise ValueError(
            f"model_config={shown(model_config)} names no fields; expected something like "
            '\'{"quantizer_config": {"size": 256}}\'.'
        )
    return fields
