"""The bars of `run --once` on a terminal: one per lane, while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from indexer.core.lane_text import shortened


class Bars:
    """Shows what the lanes tell as bars on stderr; the log's lines pass above them.

    On leaving, also by Ctrl-C or an error, the cursor is back and the bars stay as they were.
    """

    def __init__(self, console: Console) -> None:
        # Lines logged meanwhile go through what rich puts in place of sys.stderr.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("blocks,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            redirect_stdout=False,
        )
        self._bars: dict[tuple[str, str], TaskID] = {}
        self._owed: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def debt_known(self, chain: str, missing_blocks: Mapping[str, int]) -> None:
        """So many blocks are owed, by pass."""
        for name, blocks in missing_blocks.items():
            kind, _, manager = name.partition("/")
            self._show(chain, f"{kind} {shortened(manager)}".strip(), blocks)

    def head_known(self, chain: str, indexed_block: int, latest_block: int) -> None:
        """The live lane is that far behind."""
        self._show(chain, "live", max(latest_block - indexed_block, 0))

    def _show(self, chain: str, lane: str, owed: int) -> None:
        key = (chain, lane)
        if key not in self._bars:
            if not owed:
                return
            self._bars[key] = self._progress.add_task(f"{chain} {lane}", total=0)
        bar = self._bars[key]
        task = next(one for one in self._progress.tasks if one.id == bar)
        # What is owed may grow: finality goes on, accounts are learnt.
        grown = max(owed - self._owed.get(key, 0), 0)
        self._owed[key] = owed
        total = int(task.total or 0) + grown
        self._progress.update(bar, total=total, completed=total - owed)
