"""Options of image augmentation, shared by pretraining and fine-tuning."""

from dataclasses import dataclass, field

from ..data.given_options import GivenOptions
from ..data.image_views import ImageViews


@dataclass(kw_only=True)
class ViewOptions(GivenOptions):
    """The fields of [`ImageViews`], as options of a command."""

    crop_scale: float = field(default=1.0, metadata={"help": "Smallest share of the image a random crop keeps."})
    max_crop_scale: float = field(
        default=1.0,
        metadata={"help": "Largest area of a crop in areas of the image, such as 2: above 1 the image looks smaller."},
    )
    flip: bool = field(default=False, metadata={"help": "Mirror every other image. (Left and right change places.)"})
    rotation: float = field(default=0.0, metadata={"help": "Turn images by up to so many degrees either way."})
    color_jitter: float = field(
        default=0.0,
        metadata={"help": "Recolour images, leaving white as it is: deviation of a colour matrix, such as 0.15."},
    )
    distortions: int = field(
        default=0, metadata={"help": "RandAugment: how many distortions are drawn per image, as ALBEF has them; 2."}
    )

    outlines: float = field(
        default=0.0, metadata={"help": "Share of images whose edges are drawn black, as in inked drawings."}
    )

    @property
    def views(self) -> ImageViews:
        """The augmentation; raises a ValueError for an option out of its range."""
        return ImageViews(**{name: getattr(self, name) for name in ViewOptions.__dataclass_fields__})
