"""The command `cbvila search`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .parsing import Parser
from .processes import Processes, joined_processes

if TYPE_CHECKING:
    from ..retrieval.retriever import CBViLARetriever

EXAMPLE = """\
example:
  cbvila search ~/Pictures "a blue circle"
  cbvila search ~/Pictures "a blue circle" --not "a square" --top_k 3 --page found.html
  cbvila search ~/Pictures --image like_this.png --not_image unlike_that.png --fold_duplicates 0.99
  accelerate launch --num_processes 8 -m transformers_cbvila search ~/Pictures "a blue circle"

A line for each picture that is found: its score, how probably it matches (if the model's match_calibration was
fitted, as `cbvila inspect` and `cbvila evaluate retrieval` do), and its file. Of a calibrated model, pictures of less
than one half are left out, so that nothing can be the answer; --min_probability 0 shows them.

Pictures are encoded once, into an index in the cache of Hugging Face (HF_HOME, in cbvila/search). The next search
encodes what is new or changed and forgets what is gone; several processes share what is to be encoded. The page is one
HTML file: the pictures, with a heat map for each word of the text and, if a picture was asked for, the visual words
that they share with it.
"""
INTERRUPTED = "Interrupted. The same command goes on with the pictures that are not indexed yet."
_SIDE_OF_TRIAL = 64  # pixels of the picture that a query is tried on
_PICTURES = (("image", "image"), ("negative_image", "not_image"))  # parts of a query, and their options
_PROBABLE = 0.5  # least probability of what is shown if nobody says another, of a calibrated model


class Found(NamedTuple):
    """A picture that was found, and how many near-duplicates it stands for."""

    file: Path
    score: float
    probability: float | None
    folded: int


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(
        prog="cbvila search",
        usage="cbvila search FOLDER [TEXT] [OPTION VALUE ...]",
        description="Find the pictures of a folder that fit a text, a picture, or both.",
        epilog=EXAMPLE,
    )
    parser.add_argument("folder", help="folder of pictures, whose subfolders are searched, too")
    parser.add_argument("text", nargs="?", help="what to search for, in words")
    parser.add_argument("--image", metavar="FILE", help="a picture to search for, instead of the text or beside it")
    parser.add_argument("--not", metavar="TEXT", help="what is not wanted, in words")
    parser.add_argument("--not_image", metavar="FILE", help="a picture of what is not wanted")
    parser.add_argument(
        "--model", default="cbvila-scenes", help="folder, Hub id, or the name of a bundled checkpoint, for retrieval"
    )
    parser.add_argument("--top_k", type=int, default=10, metavar="N", help="pictures to show, at most")
    parser.add_argument(
        "--min_probability",
        type=float,
        metavar="P",
        help="least probability of a picture (default: 0.5 if calibrated)",
    )
    parser.add_argument(
        "--fold_duplicates",
        type=float,
        metavar="T",
        help="show one of several pictures whose similarity is T or more, up to 1 (default: show all)",
    )
    parser.add_argument("--page", metavar="FILE.html", help="file for a page that shows what was found, and why")
    parser.add_argument("--index_dir", metavar="FOLDER", help="folder of the index (default: in the cache)")
    options = parser.parse_args(_positionals_first(argv))
    if options.text is None and options.image is None:
        parser.error("give a TEXT to search for, or a picture with --image")
    return (options,)


def _positionals_first(argv: list[str]) -> list[str]:
    """Returns the arguments with FOLDER and TEXT together, wherever they stand: argparse takes no TEXT after options.

    Every option of this command has one value.
    """
    positionals, options, words = list[str](), list[str](), iter(argv)
    for word in words:
        if word == "--":
            positionals += words
        elif word.startswith("--"):
            options += [word] if "=" in word else [word, *islice(words, 1)]
        else:
            (options if word.startswith("-") else positionals).append(word)
    return (
        [*options, "--", *positionals] if any(word.startswith("-") for word in positionals) else positionals + options
    )


def run(asked: argparse.Namespace) -> int:
    """Indexes the folder, searches it, prints what was found and writes the page."""
    with joined_processes() as processes:
        _run(asked, processes)
    return 0


def _run(asked: argparse.Namespace, processes: Processes) -> None:
    """Does this process's share; the main one searches."""
    from ..model.image_loading_cbvila import load_image
    from ..model.messages_cbvila import shown
    from ..output_files import require_folder
    from ..retrieval.retriever import CBViLARetriever
    from .argument_order import refuse_other_order
    from .unknown_words import note_unknown_words

    require_folder("page", asked.page)
    refuse_other_order("cbvila search FOLDER TEXT", asked.folder, asked.text or "", os.path.isdir)
    if not os.path.isdir(asked.folder):
        raise FileNotFoundError(f"{shown(asked.folder, 255)} is no folder: give the folder of the pictures.")
    images = {name: load_image(file) for name, option in _PICTURES if (file := getattr(asked, option))}
    retriever = CBViLARetriever.from_pretrained(asked.model, device=processes.device)
    query = _query(asked, images)
    _try_on_one_picture(retriever, query)
    if processes.is_main:
        note_unknown_words(retriever.processor.tokenizer, asked.model, asked.text, query["negative_text"])
    keep_states = retriever.rerank_k > 0  # what nothing re-ranks takes a thousandth of the disk
    folder = asked.index_dir or _in_cache(retriever, asked.folder, keep_states)
    if processes.count > 1:
        _encode_together(retriever, asked.folder, folder, keep_states, processes)
    if not processes.is_main:
        return
    retriever.index(asked.folder, folder=folder, keep_states=keep_states)
    print(f"{len(retriever):,} pictures are indexed in {folder}", file=sys.stderr)
    hits, note = _search(retriever, query)
    for hit in hits:
        print(_line(hit))
    if note:
        print(note, file=sys.stderr if hits else sys.stdout)  # a line of the output is a picture
    if asked.page:
        print(f"Page: {_write_page(retriever, asked, images, hits, note)}")


def _encode_together(
    retriever: CBViLARetriever, pictures: str, folder: str | Path, keep_states: bool, processes: Processes
) -> None:
    """Has each process encode its part of what the index lacks; the index takes them when it is asked next."""
    from ..retrieval.encoding import GalleryEncoder
    from ..retrieval.folder_gallery import encode_part, start_parts

    encoder = GalleryEncoder(
        retriever.model, retriever.processor, "images", progress=processes.is_main, keep_states=keep_states
    )
    if processes.is_main:
        start_parts(pictures, folder, encoder)
    processes.wait()
    encode_part(pictures, folder, encoder, processes.index, processes.count)
    processes.wait()


def _in_cache(retriever: CBViLARetriever, folder: str, keep_states: bool) -> Path:
    """Returns where the index of a folder is by default: a place for each folder and model."""
    from huggingface_hub.constants import HF_HOME

    from ..data.pairs import stable_id
    from ..retrieval.encoding import GalleryEncoder
    from ..retrieval.gallery_identity import describe

    path = os.path.abspath(folder)
    encoder = GalleryEncoder(retriever.model, retriever.processor, "images", keep_states=keep_states)
    number = stable_id(os.fsencode(path), json.dumps(describe(encoder), sort_keys=True))
    cached = Path(HF_HOME, "cbvila", "search", f"{Path(path).name}-{number:016x}")
    cached.parent.mkdir(parents=True, exist_ok=True)
    return cached


def _query(asked: argparse.Namespace, images: dict[str, Any]) -> dict[str, Any]:
    """Returns what the retriever is asked."""
    query = {"text": asked.text, "negative_text": getattr(asked, "not"), **images, "top_k": asked.top_k}
    return query | {"fold_duplicates": asked.fold_duplicates, "min_probability": asked.min_probability}


def _try_on_one_picture(retriever: CBViLARetriever, query: dict[str, Any]) -> None:
    """Asks the query of one empty picture, so that what is wrong with it is said before a folder is encoded.

    Raises:
        ValueError: See [`~transformers_cbvila.CBViLARetriever.search`].
    """
    from PIL import Image

    trial = type(retriever)(retriever.model, retriever.processor, retriever.device)
    picture = Image.new("RGB", (_SIDE_OF_TRIAL, _SIDE_OF_TRIAL))
    trial.index([picture], progress=False, keep_states=retriever.rerank_k > 0).search(**query)


def _search(retriever: CBViLARetriever, query: dict[str, Any]) -> tuple[list[Found], str]:
    """Returns what was found, and what to say of pictures that are not probable enough."""
    found: Any = retriever.search(**query)
    least = _PROBABLE if query["min_probability"] is None else query["min_probability"]
    probabilities = [None] * len(found.indices) if found.probabilities is None else found.probabilities.tolist()
    folded = [0] * len(found.indices) if found.folded is None else found.folded.tolist()
    rows = list(zip(found.indices.tolist(), found.scores.tolist(), probabilities, folded, strict=True))
    hits = [
        Found(retriever.files[row], score, probability, others)
        for row, score, probability, others in rows
        if row >= 0 and (probability is None or probability >= least)
    ]
    if hits:
        return hits, _note_of_others(rows, len(hits), query, least)
    best = next((f" Best: {retriever.files[row]}, {100 * p:.1f} %." for row, _, p, _ in rows if row >= 0), "")
    return [], (
        f"Nothing is probable enough: none of {len(retriever):,} pictures matches with {100 * least:g} % or more."
        f"{best} --min_probability 0 shows the best ones. Probabilities hold for texts and pictures like those of "
        "training: of cbvila-scenes these are its own drawings, and texts that name all objects."
    )


def _note_of_others(rows: list[tuple[Any, ...]], shown: int, query: dict[str, Any], least: float) -> str:
    """Returns how many of the best were not probable enough; an empty string if none."""
    # the retriever leaves improbable rows out, of the number -1; so it does where folding finds no more pictures
    others = len(rows) - shown if query["fold_duplicates"] is None else sum(row >= 0 for row, *_ in rows) - shown
    if not others:
        return ""
    return f"{others:,} more below {100 * least:g} %, which --min_probability 0 shows."


def _line(found: Found) -> str:
    """Returns the line of a picture that was found."""
    parts = [f"{found.score:z8.4f}"]
    if found.probability is not None:
        parts.append(f"{100 * found.probability:5.1f} %")
    name = str(found.file)
    parts.append(name if name.isprintable() else ascii(name))  # a name may have a line break, or be no UTF-8
    if found.folded:
        parts.append(f"(and {found.folded:,} like it)")
    return "  ".join(parts)


def _write_page(
    retriever: CBViLARetriever, asked: argparse.Namespace, images: dict[str, Any], found: list[Found], note: str
) -> Path:
    """Writes the page of what was found."""
    from ..model.image_loading_cbvila import load_image
    from ..pages.search_page import SearchHit, SearchQuery, write_search_page

    pictures = [load_image(hit.file) for hit in found]
    unwanted = getattr(asked, "not")
    without = [
        unwanted and f"“{unwanted}”",
        asked.not_image and "what another picture shows",
    ]
    query = SearchQuery(
        asked.text, images.get("image"), " and ".join(part for part in without if part), len(retriever)
    )
    explanations = _explanations(retriever, pictures, asked.text)
    shared = _shared(retriever, asked.model, images.get("image"), pictures)
    hits = [
        SearchHit(
            hit.file.relative_to(asked.folder).as_posix(),
            picture,
            hit.score,
            hit.probability,
            hit.folded,
            explanation,
            words,
        )
        for hit, picture, explanation, words in zip(found, pictures, explanations, shared, strict=True)
    ]
    return write_search_page(asked.page, query, hits, note)


def _explanations(retriever: CBViLARetriever, pictures: list[Any], text: str | None) -> list[Any]:
    """Returns where the words of a text look in each picture; None if there is no text, or nothing matches them."""
    from ..explaining.explain import explain_batch

    if text is None or not pictures or not retriever.model.config.needs("hard_negatives"):
        return [None] * len(pictures)
    return explain_batch(retriever.model, retriever.processor, pictures, [text] * len(pictures))


def _shared(retriever: CBViLARetriever, name: str, image: Any, pictures: list[Any]) -> list[Any]:
    """Returns the visual words that an image shares with each picture; None without an image or a codebook."""
    from ..bundled import checkpoint_source
    from ..explaining.visual_words import shared_codes
    from ..model.modeling_cbvila_pretraining import CBViLAForPreTraining
    from .explain import head_of

    source = checkpoint_source(name)
    if image is None or not pictures or head_of(source) is not CBViLAForPreTraining:
        return [None] * len(pictures)
    model = CBViLAForPreTraining.from_pretrained(source).to(retriever.device)
    if not model.cbvila.has_quantizer:
        return [None] * len(pictures)
    return shared_codes(model.eval(), retriever.processor, image, pictures)
