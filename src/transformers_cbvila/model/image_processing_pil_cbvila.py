"""CB-ViLA's image processor on Pillow and numpy alone."""

from typing import Any

from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

from .image_inputs_cbvila import to_rgb_inputs
from .remote_code_cbvila import saved_with_its_code


@saved_with_its_code
class CBViLAImageProcessorPil(PilBackend):
    """Converts images to `pixel_values` (B, 3, height, width), resized, rescaled to 0..1 and normalized.

    Configurations saved by either backend load in the other.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Processes an image or a list of PIL images, arrays, tensors, paths or URLs, see `load_image`."""
        images, kwargs = to_rgb_inputs(self, images, kwargs)
        return super().preprocess(images, **kwargs)


__all__ = ["CBViLAImageProcessorPil"]
