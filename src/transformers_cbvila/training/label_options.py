"""The classes of patches that a pretraining uses: where label maps come from, as the options of its job say."""

from typing import Any

from ..data.given_options import default_of
from ..data.label_maps import LabelMaps
from ..data.segmentation import Segmenter
from ..model.messages_cbvila import shown
from ..model.quantizers_cbvila import QUANTIZERS
from .pretraining_job import PretrainingJob


def label_maps(job: PretrainingJob) -> LabelMaps:
    """Returns the label maps of a job's rows. ValueError if its segmentation model cannot be loaded."""
    segmenter = None if job.label_model is None else Segmenter(job.label_model)
    if segmenter is not None:
        segmenter.load()  # here, rather than in a loader worker
    return LabelMaps(segmenter, job.label_share)


def _users() -> str:
    """Returns the names of quantizers that use classes of patches."""
    return " or ".join(repr(name) for name, cls in QUANTIZERS.items() if "token_classes" in cls.takes_hints)


def check_classes(job: PretrainingJob, model: Any) -> None:
    """Raises a ValueError for options of label maps that a model does not use, and for two views that are the same."""
    given = {name: getattr(job, name) for name in ("label_map_column", "label_model", "label_share")}
    named = [f"{name}={shown(value)}" for name, value in given.items() if value != default_of(job, name)]
    if named and not model.config.takes_hint("token_classes"):
        raise ValueError(
            f"{named[0]} is of classes of patches, which the quantizer {model.config.quantizer_config.type!r} does "
            f"not use: leave it out, or choose one that does, quantizer_config={{'type': {_users()}}}."
        )
    if model.needs("other_view") and job.views.are_all_equal:
        objectives = [name for name, objective in model.objectives.items() if "other_view" in objective.needs]
        raise ValueError(
            f"{' and '.join(objectives)} compares two views of an image, and without crop_scale, flip or another "
            "option of views both are the image itself: give one, such as crop_scale=0.7, or leave the objective out."
        )
