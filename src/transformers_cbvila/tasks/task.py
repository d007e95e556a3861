"""The contract of a downstream task: its options, and all that the commands and the Hub ask of it.

A task is one class in one file, named in `registry.py`. Its dataclass fields are options of `cbvila finetune` and
`cbvila evaluate`, which may stand in a recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..data.given_options import GivenOptions, Repeatable, refuse_without
from ..model.messages_cbvila import shown
from .fields import FieldReader, Fields, Measured, Metrics
from .image_layout import ImageLayout
from .protocol import Protocol
from .training_defaults import TrainingDefaults

if TYPE_CHECKING:
    from ..data.image_views import ImageViews
    from ..model.configuration_cbvila import CBViLAConfig
    from ..model.processing_cbvila import CBViLAProcessor
    from .evaluation import Evaluation
    from .rows import TaskRows


@dataclass
class Task(GivenOptions, ABC):
    """A downstream task with its options.

    Class attributes:
        name: On the command line.
        head: Class of its models.
        card: File of `hub_cards/` that cards of its models are made from.
        hub_task: Its name in the metadata of cards.
        pipeline_tag: The task that the Hub lists its models under, where the Hub knows it.
        source_task: Name of the task whose rows of built-in sources it reads; by default its own.
        main_metric: The metric that chooses the best checkpoint.
        defaults: How it is trained where no option says it.
        protocols: Protocols of the literature, by name.
        zero_shot_heads: Names of other heads that have all weights that it needs.
        columns: Options that name a column of every row, and the columns that are looked for without them.
        optional_columns: Fields that a row has if its source has one of these columns.
        merged_fields: Lists, which rows of the same image put together (`image_id_column`).
        training_options: Options of this class that `cbvila evaluate` does not have.
        evaluation_options: Options of this class that only its evaluation looks at.
        has_text_baseline: Whether training data give a baseline that looks at texts alone.
        has_baselines: Whether training data give any baseline.
        has_predictions: Whether its evaluation predicts something for each row.
        resumes_evaluation: Whether its evaluation can keep finished work in a folder.
        shares_evaluation: Whether several processes can share its evaluation.
    """

    name: ClassVar[str]
    head: ClassVar[type[Any]]
    card: ClassVar[str]
    hub_task: ClassVar[str]
    pipeline_tag: ClassVar[str | None] = None
    source_task: ClassVar[str | None] = None
    main_metric: ClassVar[str] = "accuracy"
    defaults: ClassVar[TrainingDefaults]
    protocols: ClassVar[Mapping[str, Protocol]] = {}
    zero_shot_heads: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    optional_columns: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    merged_fields: ClassVar[tuple[str, ...]] = ()
    training_options: ClassVar[frozenset[str]] = frozenset()
    evaluation_options: ClassVar[frozenset[str]] = frozenset()
    has_text_baseline: ClassVar[bool] = True
    has_baselines: ClassVar[bool] = True
    has_predictions: ClassVar[bool] = True
    resumes_evaluation: ClassVar[bool] = False
    shares_evaluation: ClassVar[bool] = False

    image_column: list[str] = field(
        default_factory=lambda: ["image"],
        metadata={
            "help": "Column with the image; of visual reasoning, all columns in order, in one option or several.",
            "action": Repeatable,
        },
    )
    image_id_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that names a row's image. Rows of the same image in a source are put together (captions, "
            "questions), and rows without an image get theirs from image_data."
        },
    )
    image_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Sources with images for rows that only name theirs; joined by image_id_column.",
            "action": Repeatable,
        },
    )
    image_data_split: str | None = field(
        default=None, metadata={"help": "Split of image_data; default: train, else the only one."}
    )
    image_data_id_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of image_data with the id; default: image_id_column or, where there is none, the names of "
            "the image files. File names count without their ending, too."
        },
    )
    where: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Keep rows with this value only: 'split=test'; several must all hold.",
            "action": Repeatable,
        },
    )
    skip_bad_rows: bool = field(
        default=False,
        metadata={
            "help": "Leave out rows with a missing or broken image, text or label, or one that the tokenizer cannot "
            "take, and count them; every image is read once beforehand. Without, such a row is an error that names it."
        },
    )

    def __post_init__(self) -> None:
        """Raises a ValueError for options that cannot be."""
        if not self.image_column:
            raise ValueError("image_column is empty; name the column with the images.")
        for condition in self.where:
            if "=" not in condition:
                raise ValueError(
                    f"where={shown(condition)} is no condition; expected COLUMN=VALUE, such as 'split=test'."
                )
        refuse_without(self, "image_data", ("image_data_split", "image_data_id_column"))
        if self.image_data and self.image_id_column is None:
            raise ValueError("image_data is joined by image_id_column; name the column, such as image_id.")
        if len(self.image_column) > 1 and self.image_data:
            raise ValueError(
                f"image_data gives each row one image, and image_column={self.image_column} names several."
            )
        if len(self.image_column) > 1 and not self.image_layout.several:
            raise ValueError(f"image_column={self.image_column}: {self.name} has one image per row.")

    # Rows.

    @property
    def image_layout(self) -> ImageLayout:
        """How the images of a row lie in its columns."""
        return ImageLayout()

    def value_columns(self) -> list[str]:
        """Returns the columns that are read beside images and texts, and must be there."""
        return [] if self.image_id_column is None else [self.image_id_column]

    @abstractmethod
    def field_reader(self, columns: Mapping[str, str], features: Any, classes: Sequence[str]) -> FieldReader:
        """Returns what reads the fields of a row, all but its images, and raises a ValueError for a bad row.

        Args:
            columns: Columns by option, of all options that name one (`columns.py`).
            features: Of the source.
            classes: Names of the classes that labels may have.

        Raises:
            ValueError: If no row of such a source can be read.
        """

    @abstractmethod
    def texts(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields what each input text of a row is called in errors, and the text."""

    def targets(self, fields: Fields) -> Iterator[tuple[str, str]]:
        """Yields the same of texts that training predicts: nothing may cut them."""
        return iter(())

    # Model.

    @classmethod
    def processor_class(cls) -> type[Any]:
        """Returns the class of its models' processors."""
        from ..model.processing_cbvila import CBViLAProcessor

        return CBViLAProcessor

    def loading_options(self) -> dict[str, Any]:
        """Returns options of `from_pretrained` for its models and their processors."""
        return {}

    def create(self, source: str, from_scratch: bool) -> tuple[Any, Any] | None:
        """Returns a model to be trained and its processor, of a task that makes them by itself.

        Args:
            source: The checkpoint to start from.
            from_scratch: Whether to start from random weights.
        """
        return None

    def width(self, config: Any) -> int:
        """Returns the width of what is trained, on which the learning rate depends."""
        return config.text_config.hidden_size

    def classes(self, config: CBViLAConfig) -> tuple[str, ...]:
        """Returns the names of the classes that a model predicts, if it predicts any."""
        return ()

    def prepare_config(self, config: CBViLAConfig) -> None:
        """Changes the configuration of a model that is to be trained, where these options decide it."""

    def check_model(self, config: CBViLAConfig) -> None:
        """Raises a ValueError if a trained model does not go with these options."""

    # Training.

    @abstractmethod
    def training_set(self, rows: TaskRows, seed: int, views: ImageViews) -> Any:
        """Returns the examples of training, a data set whose length is that of an epoch.

        Args:
            rows: The rows.
            seed: Of all draws.
            views: What training sees of images.
        """

    @abstractmethod
    def collator(self, processor: CBViLAProcessor, config: CBViLAConfig) -> Any:
        """Returns what makes batches of examples."""

    # Evaluation.

    @abstractmethod
    def measure(self, model: Any, processor: CBViLAProcessor, rows: TaskRows, evaluation: Evaluation) -> Measured:
        """Returns the metrics of a model on rows, with intervals (`_low`, `_high`) and baselines (`_floor`)."""

    @abstractmethod
    def compared_metrics(self) -> tuple[str, ...]:
        """Returns the names of the metrics that are higher for a better model."""

    def check_evaluation(self, processor: CBViLAProcessor, rows: TaskRows | None, official: bool) -> None:
        """Raises what `measure` would for these options, so that no model is trained in vain.

        Args:
            processor: Of the model.
            rows: That are to be evaluated, if there are any.
            official: Whether by a protocol.
        """

    def keep_findings(self, folder: Path, metrics: Metrics, prefix: str = "") -> str | None:
        """Writes what an evaluation decides about a model into its folder, and returns what was done, if anything."""
        return None

    def recorded_options(self) -> dict[str, Any]:
        """Returns the options for the record of a run, files and sources without their folders."""
        return asdict(self) | {"image_data": [Path(name).name for name in self.image_data]}

    def counts(self, rows: TaskRows) -> dict[str, set[int]]:
        """Returns how many there are of what protocols count."""
        return {"rows": {len(rows)}}


def check_at_least(name: str, value: int, least: int) -> None:
    """Raises a ValueError if an option is less than it may be."""
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}.")


def called(what: str, columns: Mapping[str, str]) -> str:
    """Returns what an error calls a text: with its column, where one is known."""
    column = columns.get(f"{what}_column")
    return what if column is None else f"{what} in column {column!r}"


def text_fields(fields: Fields, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields the texts of fields that hold one or a list of them."""
    for name in names:
        value = fields[name]
        yield from ((name.removesuffix("s"), text) for text in ([value] if isinstance(value, str) else value))
