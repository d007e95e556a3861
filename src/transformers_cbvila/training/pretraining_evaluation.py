"""Options of what pretraining is measured on while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.given_options import refuse_without
from ..data.option_texts import SOURCES
from ..data.source_rows import usual_split
from ..model.messages_cbvila import shown


@dataclass(kw_only=True)
class EvaluationOptions:
    """Held-out images with captions that a pretraining is measured on, and how."""

    eval_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Held-out images with captions to measure the model on, as `cbvila inspect` does, at the end and "
            f"as often as eval_strategy and eval_steps say: {SOURCES[0].lower()}{SOURCES[1:]}."
        },
    )
    eval_split: str | None = field(
        default=None, metadata={"help": "Split of eval_data; default: validation, else test, else the only one."}
    )
    eval_rows: int = field(
        default=1000,
        metadata={"help": "At most so many rows of eval_data are measured, evenly spaced. Recall depends on it."},
    )
    eval_rerank_k: int = field(
        default=64,
        metadata={
            "help": "Candidates per query that matching orders when eval_data are measured, which takes most of the "
            "time; 0: none."
        },
    )

    def check_evaluation(self) -> None:
        """Raises a ValueError for an option out of its range, or without the data that it is for."""
        if self.eval_rows < 2:
            raise ValueError(
                f"eval_rows={shown(self.eval_rows)} must be at least 2: a caption is measured against another image's."
            )
        if self.eval_rerank_k < 0:
            raise ValueError(f"eval_rerank_k={shown(self.eval_rerank_k)} must be at least 0, which orders nothing.")
        refuse_without(self, "eval_data", ("eval_split", "eval_rows", "eval_rerank_k"))

    @property
    def measured_split(self) -> str:
        """Split of `eval_data`, looked up if none is named."""
        return self.eval_split or usual_split(self.eval_data, ("validation", "test"))
