"""Measures image encoding: ours beside the image encoder alone, and beside sentence-transformers' CLIP of its size.

Random weights. `get_image_features` and the gallery's encoder add a projection, checks and normalization. The
gallery's encoder also reads and resizes pictures, which is counted apart. CLIP is compared with pictures as input, and
where sentence-transformers is installed (`make test-sentence-transformers` has an environment).
"""

import tempfile
from importlib.util import find_spec
from typing import Any

import torch
from large_gallery import GeneratedImages
from measuring import Spread, clock, in_turns, parser, positive, show
from questions import sized
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer, set_seed
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_cbvila import CBViLAConfig, CBViLAForImageTextRetrieval, CBViLAImageProcessorPil, CBViLAProcessor
from transformers_cbvila.retrieval.encoding import GalleryEncoder, pixel_values_of

TOWER, FEATURES, GALLERY = "image encoder alone", "get_image_features", "gallery's encoder"
READING, PICTURES, CLIP = "reading and resizing", "gallery's encoder, of pictures", "sentence-transformers' CLIP"


def our_encoder(config: CBViLAConfig, tokenizer: Any, batch_size: int) -> GalleryEncoder:
    """Returns the gallery's encoder of a model with random weights, which keeps embeddings alone."""
    side = config.vision_config.image_size
    processor = CBViLAProcessor(CBViLAImageProcessorPil(size={"height": side, "width": side}), tokenizer)
    model = CBViLAForImageTextRetrieval(config).eval()
    return GalleryEncoder(model, processor, "images", batch_size=batch_size, progress=False, keep_states=False)


def clip_encoder(config: CBViLAConfig) -> Any:
    """Returns sentence-transformers' encoder over CLIP with an image encoder of the same size."""
    from sentence_transformers import SentenceTransformer

    vision = config.vision_config
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {name: getattr(vision, name) for name in (*names, "image_size", "patch_size")}
    words = {word: number for number, word in enumerate(["<|startoftext|>", "<|endoftext|>"])}
    clip = CLIPConfig(
        vision_config={**sizes, "hidden_act": vision.hidden_act},
        text_config={"vocab_size": len(words), "num_hidden_layers": 1, "bos_token_id": 0, "eos_token_id": 1},
        projection_dim=config.projection_dim,
    )
    side = {"height": vision.image_size, "width": vision.image_size}
    processor = CLIPProcessor(
        CLIPImageProcessorPil(size=side, crop_size=side),
        CLIPTokenizer(vocab=words, merges=[], unk_token="<|endoftext|>"),
    )
    with tempfile.TemporaryDirectory() as folder:
        CLIPModel(clip).save_pretrained(folder)
        processor.save_pretrained(folder)
        return SentenceTransformer(folder, device="cpu")


def compare(encoder: GalleryEncoder, clip: Any, pictures: list[Any], rounds: int) -> None:
    """Measures and prints the comparisons; `clip` may be None."""
    model: Any = encoder.model
    pixels = pixel_values_of(model, encoder.processor, pictures)
    tasks = {
        TOWER: torch.no_grad(lambda: model.cbvila.vision_model(pixels)),
        FEATURES: torch.no_grad(lambda: model.cbvila.get_image_features(pixels)),
        GALLERY: lambda: encoder.encode_pixels(pixels),
        READING: lambda: pixel_values_of(model, encoder.processor, pictures),
        PICTURES: lambda: encoder.encode(pictures),
    }
    if clip is not None:
        tasks[CLIP] = lambda: clip.encode(pictures, batch_size=len(pictures), show_progress_bar=False)
    times = in_turns(tasks, rounds, clock(pixels.device))
    rows = {name: f"{rate(taken, len(pictures))} images per CPU-second" for name, taken in times.items()}
    for name in (FEATURES, GALLERY):
        rows[f"{name} / {TOWER}"] = f"{quotient(times[name], times[TOWER])} of its time"
    if clip is not None:
        rows[f"{CLIP} / ours"] = f"{quotient(times[CLIP], times[PICTURES])} of the time"
    show(rows)


def rate(taken: Spread, count: int) -> Spread:
    """Returns how many of `count` are done in a second."""
    return Spread([count / value for value in taken.values])


def quotient(times: Spread, others: Spread) -> Spread:
    """Returns the ratio of times, round by round."""
    return Spread([time / other for time, other in zip(times.values, others.values, strict=True)])


def main() -> None:
    """Measures and prints the comparisons."""
    arguments = parser(__doc__, "python benchmarks/encoding.py --size base --batch_size 8 --rounds 3")
    arguments.add_argument("--size", choices=["tiny", "base"], default="tiny", help="tiny: recipes/pretrain-tiny.yaml")
    arguments.add_argument("--batch_size", type=positive, default=64, metavar="B", help="default 64")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    config, tokenizer = sized(options.size)
    clip = clip_encoder(config) if find_spec("sentence_transformers") else None
    pictures = [GeneratedImages(options.batch_size)[number] for number in range(options.batch_size)]
    print(f"{options.size}, {config.vision_config.image_size} px, {len(pictures)} images, {options.threads} thread(s)")
    if clip is None:
        print("sentence-transformers is not installed: without its CLIP.")
    compare(our_encoder(config, tokenizer, options.batch_size), clip, pictures, options.rounds)


if __name__ == "__main__":
    main()
