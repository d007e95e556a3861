"""Shows which threshold of fold_duplicates parts altered copies from other pictures, for a model and its pictures.

Each picture is saved as JPEG, scaled down, cropped and brightened. "Folded" is the share of such copies whose cosine
with their original is the threshold or more, and "other" the share of pictures that have another picture as near:
these would be folded although they differ.
"""

from io import BytesIO

import torch
import torch.nn.functional as F
from measuring import parser, positive
from PIL import Image, ImageEnhance

from transformers_cbvila import CBViLARetriever
from transformers_cbvila.data.images import read_image
from transformers_cbvila.data.source_rows import load_rows, usual_split
from transformers_cbvila.retrieval.encoding import GalleryEncoder

THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)


def as_jpeg(image: Image.Image, quality: int = 60) -> Image.Image:
    """Returns an image as it is after saving it as JPEG."""
    file = BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, margin: float = 0.03) -> Image.Image:
    """Returns an image without a margin."""
    width, height = image.size
    return image.crop((width * margin, height * margin, width * (1 - margin), height * (1 - margin)))


ALTERED = {
    "as JPEG": as_jpeg,
    "scaled to 3/4": lambda image: image.resize([3 * side // 4 for side in image.size]),
    "cropped by 3 %": cropped,
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
}


def main() -> None:
    """Measures and prints a line for each threshold."""
    arguments = parser(__doc__, "python benchmarks/near_duplicates.py --model cbvila-tiny --data scenes --rows 200")
    arguments.add_argument("--model", default="cbvila-tiny", help="default cbvila-tiny")
    arguments.add_argument("--data", default="scenes", help="source of the pictures; default scenes")
    arguments.add_argument("--rows", type=positive, default=500, metavar="N", help="pictures; default 500")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    retriever = CBViLARetriever.from_pretrained(options.model, device="cpu")
    rows = load_rows(options.data, f"{usual_split([options.data])}[:{options.rows}]")
    pictures = [read_image(row["image"]) for row in rows]

    def encoded(images: list[Image.Image]) -> torch.Tensor:
        encoder = GalleryEncoder(retriever.model, retriever.processor, "images", progress=False, keep_states=False)
        return F.normalize(encoder.encode(images).embeds, dim=-1)

    originals = encoded(pictures)
    copies = {name: (originals * encoded(list(map(alter, pictures)))).sum(1) for name, alter in ALTERED.items()}
    nearest = (originals @ originals.T).fill_diagonal_(-1).amax(1)
    print(f"{len(pictures):,} pictures of {options.data}, {options.model}: folded (%), and other (%)")
    print("  threshold" + "".join(f"{name:>16}" for name in (*ALTERED, "other")))
    for threshold in THRESHOLDS:
        shares = [float((cosines >= threshold).float().mean()) for cosines in (*copies.values(), nearest)]
        print(f"  {threshold:<9}" + "".join(f"{100 * share:>16.1f}" for share in shares))


if __name__ == "__main__":
    main()
