"""The pointing game on scenes: how often a word looks most at the object that it names, by method and fusion layer.

Words that name an object are a colour and the shape after it. A word points at the centre of the patch where its map
is greatest; that is a hit if it is in the object's box. Beside it, what a random patch and the centre of the image
reach, and what the best map would: small boxes may have no patch's centre in them.
"""

import argparse
from typing import Any

import torch
from measuring import positive, show

from transformers_cbvila import CBViLAForImageTextRetrieval, CBViLAProcessor
from transformers_cbvila.bundled import checkpoint_source
from transformers_cbvila.data.scenes.options import SPLITS, SceneOptions
from transformers_cbvila.data.scenes.scene_rows import SceneRows
from transformers_cbvila.devices import placed
from transformers_cbvila.explaining.attention_maps import albef_layer
from transformers_cbvila.explaining.pointing import PARTS, Pointing, play_pointing_game
from transformers_cbvila.metrics.intervals import bootstrap_interval


def hits(game: Pointing, part: str | None = None) -> str:
    """Returns the share of hits, of one part of the names or of all, with its 95 % interval over images."""
    chosen = slice(None) if part is None else game.parts == part
    values, images = game.hits[chosen], game.images[chosen]
    low, high = bootstrap_interval(values, seed=0, groups=images)
    return f"{100 * values.mean():.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def settings(layers: int) -> dict[str, dict[str, Any]]:
    """Returns the options of [`explain`] by what they are called; matching reads no words after the last layer."""
    of_albef = albef_layer(layers)
    by_layer = {
        f"Grad-CAM, layer {layer}{' (as ALBEF)' * (layer == of_albef)}": {"layer": layer}
        for layer in range(layers - 1)
    }
    rollouts = {f"rollout to layer {layer}": {"method": "rollout", "layer": layer} for layer in range(layers)}
    return {"Grad-CAM, all layers (default)": {}} | by_layer | rollouts


def main() -> None:
    """Prints a line for each method and layer, and the floors."""
    arguments = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python benchmarks/pointing.py --model cbvila-tiny --rows 200",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--threads", type=positive, default=1, metavar="N", help="CPU threads; default 1")
    arguments.add_argument(
        "--model", default="cbvila-tiny", help="folder, Hub id or bundled name; default cbvila-tiny"
    )
    arguments.add_argument("--split", default="test", choices=SPLITS, help="of scenes; default test")
    arguments.add_argument("--size", type=positive, default=64, metavar="PIXELS", help="of scenes; default 64")
    arguments.add_argument("--rows", type=positive, default=1000, metavar="N", help="scenes; default 1000")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    source = checkpoint_source(options.model)
    model = placed(CBViLAForImageTextRetrieval.from_pretrained(source).eval())
    processor, scenes = CBViLAProcessor.from_pretrained(source), SceneOptions(options.size, rows=options.rows)
    rows = SceneRows(scenes, options.split)[:]
    every = settings(len(model.cbvila.fusion_model.layers))
    games = {name: play_pointing_game(model, processor, rows, progress=False, **how) for name, how in every.items()}
    game = next(iter(games.values()))
    print(f"Hits of {len(game.hits):,} words in {options.rows:,} scenes of {options.split}: all, {', '.join(PARTS)}")
    show({name: "; ".join(hits(found, part) for part in (None, *PARTS)) for name, found in games.items()})
    show(
        {
            "a random patch": f"{100 * game.of_random_patch.mean():.1f} %",
            "the centre of the image": f"{100 * game.of_centre.mean():.1f} %",
            "the best map": f"{100 * game.best:.1f} %",
        }
    )


if __name__ == "__main__":
    main()
