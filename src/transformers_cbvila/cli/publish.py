"""The command `cbvila publish`."""

import argparse
from typing import Any

from .parsing import Parser

EXAMPLE = """\
example:
  cbvila publish runs/mine my-org/cbvila-birds --facts facts.yaml --private
  cbvila publish cbvila-tiny-easyvqa my-name/cbvila-tiny-easyvqa --output_dir staged

The folder's model is loaded in a process without this package and compared with the original, uploaded in one commit
with its code and a model card, and loaded once more from the Hub. --output_dir does all but the upload, without a
network. What the run did not record is in a file like this one:

  license: apache-2.0
  data:
    - {name: my_folder, what: 12 000 photographs of birds with captions, license: CC BY 4.0}
  limits: It knows birds of Europe, photographed by day.
  results:                  # [] where nothing was measured; other entries: recipe, codebook, language, base_model
    - {dataset: my_folder, metric: image_retrieval_r1, value: 0.31, floors: {chance: 0.001}}
"""
INTERRUPTED = "Interrupted. Nothing was uploaded."


def parse(argv: list[str]) -> tuple[argparse.Namespace]:
    """Parses the command's arguments."""
    parser = Parser(
        prog="cbvila publish",
        description="Put a model on the Hugging Face Hub.",
        epilog=EXAMPLE,
    )
    parser.add_argument("source", metavar="FOLDER_OR_RUN", help="model folder, run, or name of a bundled checkpoint")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the Hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--facts", metavar="FILE.yaml", help="facts for the model card that the run did not record")
    parser.add_argument("--card", metavar="README.md", help="a model card of your own instead")
    parser.add_argument("--commit_message", help="message of the commit on the Hub")
    parser.add_argument("--output_dir", metavar="NEW_FOLDER", help="write the repository there and upload nothing")
    return (parser.parse_args(argv),)


def run(options: argparse.Namespace) -> int:
    """Publishes or stages the model; returns the exit status."""
    from ..hub.publishing import publish, stage_repository

    card: dict[str, Any] = {"facts": options.facts, "card": options.card}
    if options.output_dir:
        print(f"Staged: {stage_repository(options.source, options.repo_id, options.output_dir, **card)}")
        return 0
    commit: dict[str, Any] = {"private": options.private, "commit_message": options.commit_message}
    published = publish(options.source, options.repo_id, **card, **commit)
    print(f"Published: {published.url} at commit {published.commit}")
    return 0
