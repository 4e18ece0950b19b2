"""Texts that somebody else sent, where they may be taken for a path."""

from pathlib import PurePosixPath, PureWindowsPath


def leads_out(text: str) -> bool:
    """Return whether a text, as a path, leads out of the folder that it is looked for in: on any system."""
    windows = PureWindowsPath(text)
    parts = {*PurePosixPath(text).parts, *windows.parts}
    return bool(windows.anchor) or text.startswith(("/", "~")) or ".." in parts or "\0" in text


def names_a_place(text: str) -> bool:
    """Return whether a text is a path that leads out, or an address of the network."""
    return leads_out(text) or "://" in text
