"""JSON documents that people or other versions may have written."""

import dataclasses
from collections.abc import Iterator
from typing import Any


def unknown_setting(document: dict[str, Any], kind: type) -> str | None:
    """The first field that the dataclass `kind` lacks and that is in use: not null and not false.

    msgspec leaves fields out that it does not know. One that is in use changes what the document
    means, so its reader must refuse it; one that is not in use may stay.
    """
    fields = {field.name for field in dataclasses.fields(kind)}
    return next(
        (
            name
            for name, value in document.items()
            if name not in fields and value is not None and value is not False
        ),
        None,
    )


def flat_settings(document: dict[str, Any], part: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting that holds none itself, with its parts' names: "vqvae.widths"."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{part}{name}.")
        else:
            yield f"{part}{name}", value
