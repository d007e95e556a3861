"""CB-ViLA's image processor on torchvision."""

from typing import Any

from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling
from transformers.utils import is_torchvision_available

from .image_inputs_cbvila import to_rgb_inputs
from .remote_code_cbvila import saved_with_its_code


@saved_with_its_code
class CBViLAImageProcessor(TorchvisionBackend):
    """Converts images to `pixel_values` (B, 3, height, width), resized, rescaled to 0..1 and normalized.

    `CBViLAImageProcessorPil` does the same without torchvision, and agrees within one 8-bit level.

    Raises:
        ImportError: If torchvision is not installed.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def __init__(self, **kwargs: Any) -> None:
        # Without this check the first call would raise a NameError.
        if not is_torchvision_available():
            raise ImportError(
                f"{type(self).__name__} needs torchvision: pip install torchvision, or use CBViLAImageProcessorPil, "
                "which gives the same without it"
            )
        super().__init__(**kwargs)

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Processes an image or a list of PIL images, arrays, tensors, paths or URLs, see `load_image`."""
        images, kwargs = to_rgb_inputs(self, images, kwargs)
        return super().preprocess(images, **kwargs)


__all__ = ["CBViLAImageProcessor"]
