"""Serves the app."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..extras import require, require_installed
from ..garbage_collection import garbage_collection_paused
from .components import asset
from .models import DEFAULT_MODELS, load_models
from .page import build_page
from .pictures import folder_pictures, scene_pictures
from .searching import PictureSearch

_FONT = ("system-ui", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
_HOST = "127.0.0.1"


def serve_app(
    models: Sequence[str] = DEFAULT_MODELS,
    images: str | Path | None = None,
    port: int | None = None,
    opens_browser: bool = True,
    blocks: bool = True,
) -> Any:
    """Serves the app until it is interrupted. Nothing is sent to other computers.

    Args:
        models: Folders, Hub ids or names of bundled checkpoints; each tab takes the first that can do what it shows.
        images: A folder of pictures to search in; by default generated scenes.
        port: The port; the first free one from 7860 by default.
        opens_browser: Whether to open the page in a browser.
        blocks: Whether to wait until it is interrupted.

    Returns:
        The `gradio.Blocks`, with its address as `local_url`.

    Raises:
        ImportError: If Gradio is not installed.
        OSError: If the port is in use, or there is no such model.
        ValueError: If a model is of no use to the app, or the folder has no pictures that can be read.
    """
    with garbage_collection_paused():
        page = _started(models, images, port, opens_browser)
    if blocks:
        print(f"The app is at {page.local_url} (Ctrl-C stops it).", flush=True)
        page.block_thread()
    return page


def _started(models: Sequence[str], images: str | Path | None, port: int | None, opens_browser: bool) -> Any:
    """Returns the `gradio.Blocks` of the app, which answers already."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    require_installed("gradio")
    if port is not None:
        _require_free(port)
    with ThreadPoolExecutor(1) as beside:  # Gradio takes two seconds to import, of which models need the other core
        importing = beside.submit(require, "gradio")
        loaded = load_models(models)
        pictures = scene_pictures() if images is None else folder_pictures(images)
        search = (
            None if loaded.retriever is None else PictureSearch(loaded.retriever, pictures, not pictures.are_scenes)
        )
        gr = importing.result()
    page = build_page(loaded, pictures, search)
    theme = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=_FONT, font_mono=_MONO)
    page.launch(
        server_port=port,
        inbrowser=opens_browser,
        prevent_thread_lock=True,
        quiet=True,
        theme=theme,
        css=asset("app.css"),
        footer_links=[],
        ssr_mode=False,
        share=False,
        # The page has answered by then; Gradio's second look at it gives up after 3 s, which a busy machine may need.
        _frontend=False,
    )
    return page


def _require_free(port: int) -> None:
    """Raises an OSError if a port is in use or is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except (OSError, OverflowError) as error:
            raise OSError(
                f"--port {port} cannot be used ({error}): name another, or leave it out to take the first free one."
            ) from error
