"""The runbook as tests read it: its sections, its statements, its commands."""

from __future__ import annotations

import re
from pathlib import Path

RUNBOOK = Path(__file__).parents[2] / "deploy" / "runbook.md"


def anchor(heading: str) -> str:
    """Return the anchor that a heading has in rendered Markdown."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def sections() -> dict[str, str]:
    """Return the text of each section of the third level by its heading."""
    parts = re.split(r"^#{2,3} (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(language: str) -> list[str]:
    """Return what stands in each fenced block of a language, each once, in order."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```$", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE
    )
    return list(dict.fromkeys(found))


def command_lines() -> list[str]:
    """Return every line of the sh blocks, each once, in order."""
    return list(dict.fromkeys(line for block in blocks("sh") for line in block.splitlines()))
