"""Options of how training looks at images, shared by pretraining and fine-tuning."""

from dataclasses import dataclass, field

from ..data.image_views import ImageViews


@dataclass(kw_only=True)
class ViewOptions:
    """The fields of [`ImageViews`], as options of a command."""

    crop_scale: float = field(default=1.0, metadata={"help": "Smallest share of the image a random crop keeps."})
    flip: bool = field(default=False, metadata={"help": "Mirror every other image. (Left and right change places.)"})
    rotation: float = field(default=0.0, metadata={"help": "Turn images by up to so many degrees either way."})
    color_jitter: float = field(
        default=0.0,
        metadata={"help": "Recolour images, leaving white as it is: deviation of a colour matrix, such as 0.15."},
    )
    distortions: int = field(
        default=0, metadata={"help": "RandAugment: how many distortions are drawn per image, as ALBEF has them; 2."}
    )

    @property
    def views(self) -> ImageViews:
        """What draws the views. ValueError for an option out of its range."""
        return ImageViews(self.crop_scale, self.flip, self.rotation, self.color_jitter, self.distortions)
