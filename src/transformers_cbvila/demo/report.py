"""Writes a demo run's report: one HTML file that needs nothing else, and the same figures as JSON."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from transformers_cbvila.demo import report_sections as sections
from transformers_cbvila.demo.demo_run import DemoRun


def write_report(output_dir: Path, run: DemoRun) -> Path:
    """Writes `report.html` (images and style inline, no network) and `report.json` into `output_dir`.

    Args:
        output_dir: an existing or new folder; reports in it are replaced.
        run: all that the report shows.

    Returns:
        The path of `report.html`.

    Raises:
        ImportError: `matplotlib` is not installed.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    page = output_dir / "report.html"
    page.write_text(_page(run), encoding="utf-8")
    figures = json.dumps(run.to_json(), indent=2, ensure_ascii=False)
    (output_dir / "report.json").write_text(figures + "\n", encoding="utf-8")
    return page


def _page(run: DemoRun) -> str:
    style = (files("transformers_cbvila.demo") / "report.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(run.title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(run.title)}</h1>
{sections.tiles_section(run)}
{sections.comparison_section(run)}
{sections.types_section(run)}
{sections.curves_section(run)}
{sections.examples_section(run)}
{sections.environment_section(run)}
</main>
</body>
</html>
"""
