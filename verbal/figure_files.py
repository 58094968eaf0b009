"""Figures of a run as files: Vega-Lite JSON with the data inside, and SVG and PNG drawn from it without a browser.

The package `vl-convert-python` (extra `plot`) draws: it holds Vega itself and needs no network; it is imported when the
first figure is drawn. It may load nothing, whatever a specification names.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verbal.errors import DataError, MissingExtra, StoreError
from verbal.figures import figures

SHARPNESS = 2
"""Dots of a PNG for each unit of the figure."""


def write_figures(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """The files that were written: `NAME.vl.json`, `NAME.svg` and `NAME.png` of every figure.

    Args:
        results: What `verbal.report.page` shows.
        folder: It is made when it does not exist.

    Raises:
        MissingExtra: the package that draws is not installed.
        StoreError: a file cannot be written.
        DataError: a figure cannot be drawn of these values.
    """
    require()
    folder, found = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in figures(results).items():
            svg, png = drawn(spec, name)
            text = json.dumps(spec, indent=1, ensure_ascii=False) + "\n"
            for path, data in (
                (folder / f"{name}.vl.json", text.encode()), (folder / f"{name}.svg", svg.encode()),
                (folder / f"{name}.png", png),
            ):  # fmt: skip
                path.write_bytes(data)
                found.append(path)
    except OSError as error:
        todo = "give a folder that can be written, on a disk with room"
        what = f"cannot write the figures: {error.strerror or error}"
        raise StoreError(what, where=str(folder), todo=todo) from error
    return found


def drawn(spec: Mapping[str, Any], name: str = "figure") -> tuple[str, bytes]:
    """A specification as SVG and as PNG.

    Raises:
        MissingExtra: the package that draws is not installed. DataError: it cannot be drawn.
    """
    converter = require()
    try:
        svg: str = converter.vegalite_to_svg(dict(spec), vl_version=_VEGALITE, allowed_base_urls=[])
        return svg, bytes(converter.svg_to_png(svg, scale=SHARPNESS))
    except ValueError as error:
        told = str(error).strip().splitlines() or ["no reason given"]
        raise DataError(f"the figure {name!r} cannot be drawn: {told[0][:200]}", todo="see verbal.figures") from error


_VEGALITE = "5.21"


def require() -> Any:
    """The package that draws, before anything is read.

    Raises:
        MissingExtra: the package that draws is not installed.
    """
    try:
        return importlib.import_module("vl_convert")
    except ModuleNotFoundError as error:
        raise MissingExtra.of("vl-convert-python", "plot") from error


__all__ = ["SHARPNESS", "drawn", "require", "write_figures"]
