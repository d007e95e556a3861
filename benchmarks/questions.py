"""Compares answers through `pipeline(...)`: ours and transformers' BLIP, of the same sizes with random weights.

Both read the same pictures (generated, in memory) and questions in one batch, and write answers of the same length.
BLIP has as many layers in each part as ours (its own text decoder would have twice as many), and answers through
`pipeline("image-text-to-text")`: transformers 5 has no pipeline for visual question answering. `generate` counts as
the model, everything else as beside it: reading and resizing pictures, tokens, scores, texts. Before it is measured,
some answers of ours are compared with those of the same questions alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from large_gallery import GeneratedImages
from measuring import Spread, clock, count_flops, parser, positive, show
from pretraining_step import model_config
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, BlipProcessor, pipeline, set_seed
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from transformers_cbvila import (
    CBViLAConfig,
    CBViLAForQuestionAnswering,
    CBViLAImageProcessorPil,
    CBViLAProcessor,
    bundled_checkpoint,
)

QUESTIONS = ("what shape is in the image", "is there a red circle", "what color is the shape", "is there a triangle")
CHECKED = 4
OURS, BLIP = "ours", "BLIP"


class Timed:
    """Measures the time in a function.

    Args:
        function: The function.
        now: The clock.
    """

    def __init__(self, function: Callable, now: Callable[[], float]) -> None:
        self.function, self.now, self.seconds = function, now, 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function and adds up the seconds."""
        start = self.now()
        result = self.function(*args, **kwargs)
        self.seconds += self.now() - start
        return result


class Side:
    """One of the two that answer.

    Args:
        ask: Answers the questions of a batch.
        model: Its model, of which `generate` is timed.
    """

    def __init__(self, ask: Callable[[], list[Any]], model: Any) -> None:
        self.ask, self.now = ask, clock(torch.device("cpu"))
        # One that was timed in a former comparison starts anew.
        self.inside = model.generate = Timed(getattr(model.generate, "function", model.generate), self.now)

    def measure(self) -> tuple[float, float]:
        """Returns the seconds of a batch, and those of them in the model."""
        self.inside.seconds, start = 0.0, self.now()
        self.ask()
        return self.now() - start, self.inside.seconds


def sized(size: str) -> tuple[CBViLAConfig, BertTokenizer]:
    """Returns the configuration of a size, and the bundled vocabulary filled up to its number of tokens."""
    config, _, _ = model_config(size, "recommended")
    text = config.text_config
    words = CBViLAProcessor.from_pretrained(bundled_checkpoint("cbvila-tiny-easyvqa")).tokenizer.get_vocab()
    unused = {f"[unused{number}]": number for number in range(len(words), text.vocab_size)}
    tokenizer = BertTokenizer(vocab={**words, **unused})
    text.bos_token_id, text.eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    text.pad_token_id = tokenizer.pad_token_id
    return config, tokenizer


def our_pipeline(config: CBViLAConfig, tokenizer: BertTokenizer) -> Any:
    """Returns our pipeline with random weights."""
    side = config.vision_config.image_size
    processor = CBViLAProcessor(CBViLAImageProcessorPil(size={"height": side, "width": side}), tokenizer)
    model = CBViLAForQuestionAnswering(config).eval()
    return pipeline("visual-question-answering", model=model, processor=processor, device="cpu")


def blip_pipeline(config: CBViLAConfig, tokenizer: BertTokenizer) -> Any:
    """Returns BLIP's with the same widths and numbers of layers."""
    vision, text, fusion = config.vision_config, config.text_config, config.multimodal_config
    names = ("hidden_size", "num_attention_heads", "intermediate_size")
    shared = {name: getattr(text, name) for name in (*names, "vocab_size", "max_position_embeddings")}
    special = {f"{name}_token_id": getattr(text, f"{name}_token_id") for name in ("bos", "pad")}
    blip = BlipConfig(
        text_config={
            **shared,
            **special,
            "eos_token_id": tokenizer.sep_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "num_hidden_layers": text.num_hidden_layers + fusion.num_hidden_layers,
            "encoder_hidden_size": vision.hidden_size,
        },
        vision_config={
            name: getattr(vision, name) for name in (*names, "num_hidden_layers", "image_size", "patch_size")
        },
    )
    model = BlipForQuestionAnswering(blip).eval()
    decoder = model.text_decoder.bert.encoder
    decoder.layer = decoder.layer[: fusion.num_hidden_layers]
    side = vision.image_size
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": side, "width": side}), tokenizer)
    return pipeline("image-text-to-text", model=model, processor=processor, device="cpu")


def check(ask: Any, images: list[Any], questions: list[str], options: dict[str, Any]) -> float:
    """Returns the largest difference between scores of a batch and of single questions."""
    together = ask(images, questions, batch_size=len(questions), generate_kwargs=options)
    alone = [ask(images[i], questions[i], generate_kwargs=options) for i in range(CHECKED)]
    for ours, own in zip(together, alone, strict=False):
        if ours[0]["answer"] != own[0]["answer"]:
            raise RuntimeError(f"{ours} in a batch, and {own} alone.")
    return max(abs(ours[0]["score"] - own[0]["score"]) for ours, own in zip(together, alone, strict=False))


def compare(pipelines: dict[str, Any], count: int, each: int, tokens: int, rounds: int) -> None:
    """Measures and prints one comparison.

    Args:
        pipelines: The pipeline of each side.
        count: Number of questions, asked in one batch.
        each: Number of questions about each picture.
        tokens: Tokens of an answer, the end included.
        rounds: Measurements of each.
    """
    pictures = [GeneratedImages(count)[number] for number in range(-(-count // each))]
    images = [pictures[number // each] for number in range(count)]
    questions = [QUESTIONS[number % len(QUESTIONS)] for number in range(count)]
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    ours, blip = pipelines[OURS], pipelines[BLIP]
    difference = check(ours, images, questions, length)
    peers = dict(length)  # transformers 5.18 writes into it
    sides = {
        OURS: Side(lambda: ours(images, questions, batch_size=count, generate_kwargs=length), ours.model),
        BLIP: Side(
            lambda: blip(images=images, text=questions, generate_kwargs=peers, return_full_text=False), blip.model
        ),
    }
    counted = {name: count_flops(side.ask) / 2e9 / count for name, side in sides.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(side.measure())
    print(f"{count} questions in a batch, {each} about each picture; answers of {tokens} tokens")
    rows = {}
    for name, times in taken.items():
        rate = Spread([count / whole for whole, _ in times])
        beside = Spread([100 * (1 - inside / whole) for whole, inside in times])
        rows[name] = f"{rate} questions per CPU-second; {beside} % beside the model; {counted[name]:.3g} GMAC each"
    ratio = Spread([theirs / own for (own, _), (theirs, _) in zip(taken[OURS], taken[BLIP], strict=True)])
    rows["ours / BLIP"] = f"{ratio}; by multiply-adds {counted[BLIP] / counted[OURS]:.3g}"
    rows[f"{CHECKED} scores alone"] = f"differ by {difference:.1e} at most"
    show(rows)


def main() -> None:
    """Measures and prints all comparisons."""
    arguments = parser(__doc__, "python benchmarks/questions.py --size tiny")
    arguments.add_argument("--size", choices=["tiny", "base"], default="tiny", help="tiny: recipes/pretrain-tiny.yaml")
    arguments.add_argument("--batch_size", type=positive, default=32, metavar="B", help="default 32")
    arguments.add_argument("--questions", type=positive, nargs="+", default=[1, 8], help="about each picture: 1 and 8")
    arguments.add_argument("--tokens", type=positive, nargs="+", default=[2, 10], help="of an answer: 2 and 10")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(0)
    config, tokenizer = sized(options.size)
    pipelines = {OURS: our_pipeline(config, tokenizer), BLIP: blip_pipeline(config, tokenizer)}
    print(f"{options.size}, {config.vision_config.image_size} px, float32, {options.threads} thread(s)\n")
    for each in options.questions:
        for tokens in options.tokens:
            compare(pipelines, options.batch_size, each, tokens, options.rounds)


if __name__ == "__main__":
    main()
