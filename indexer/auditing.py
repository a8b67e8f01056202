"""The daemon's own audit: what is stored of roots and slots, against the state, again and again.

It is read just below the tip and not at the finalized block: a pruned node may have dropped that
one's state, and a mismatch is to be known soon. Below the tip and not at it, because a node may
answer for its newest block out of the very state it is changing (see observe_newest); where the
database holds one block alone, that is read the careful way. Each chunk of accounts is read at the
block that is right then, so an audit of many may take longer than a node keeps state; what is
compared is always what is stored up to that very block.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from indexer.audit_search import Search, Suspect
from indexer.chain.bulk import read_codes
from indexer.chain.proofs import read_storage_root
from indexer.chain.rpc import Node
from indexer.core.audit_changes import Finding, by_nobody, changes_since
from indexer.core.merkle import root_slot
from indexer.core.passes import hex_of
from indexer.core.roots import (
    AccountObservation,
    RootObservation,
)
from indexer.core.settings import ChainSettings
from indexer.core.storage_trie import storage_root
from indexer.core.types import Address, Hash32
from indexer.errors import NodeError
from indexer.filters import Contracts
from indexer.ingest import (
    Look,
    StepListener,
    keep_stepping,
    observe,
    observe_newest,
    say_owed_again,
)
from indexer.log import get_logger
from indexer.store import audit_findings, auditing
from indexer.store.audit_findings import AuditResult, Repairs, StorageProof
from indexer.store.auditing import AuditChunk, KnownRoots
from indexer.store.pool import Database

log = get_logger()

CHUNK_ACCOUNTS = 1_000
"""So many are compared at once."""
ACCOUNTS_PER_READ = 90
"""With the roots of up to ten managers one request; and what the event loop waits for at once."""
EVERYONE_PER_READ = 500
"""The same without slots of their own."""
REPAIRS_PER_STEP = 20
"""Each is looked for with dozens of requests; what is left is found again by the next step."""
MOST_REST_SECONDS = 5.0
FIRST_AUDIT_SECONDS = 10
"""After the start, and between looks at whether there is anything to audit yet."""
MAX_TRIE_ROOTS = 200_000
"""Above it the storage is not computed. So many take a thread 5 to 10 seconds, and some 100 MB; the
event loop waits for it 25 ms at most (measured)."""
_NOBODY = Address(b"")


class AuditListener(StepListener, Protocol):
    """What the rest of the process wants to know of an audit."""

    def mismatches_found(self, count: int) -> None:
        """So many roots and accounts were not as stored; they are repaired."""


@dataclass(slots=True)
class _Course:
    """One audit on its way: where it is, and what it has found by manager."""

    managers: Sequence[Address]
    everyone: bool = False
    """Of every watched account the roots, and not of those alone who have or had one."""
    after: Address = _NOBODY
    began: float = field(default_factory=time.monotonic)
    accounts: int = 0
    mismatches: int = 0
    roots_of: Counter[Address] = field(default_factory=Counter)
    mismatches_of: Counter[Address] = field(default_factory=Counter)


@dataclass(slots=True)
class Auditor:
    """Audits one chain; it does nothing where `audit_seconds` is 0."""

    database: Database
    node: Node
    contracts: Contracts
    epoch: int
    listener: AuditListener
    _course: _Course | None = None
    _gives_proofs: bool = True
    _pause_seconds: float = 0.0

    @property
    def _settings(self) -> ChainSettings:
        return self.contracts.settings

    async def run(self) -> None:
        """Audit soon, and after each pause; only cancellation and fatal errors end it."""
        if self._settings.audit_seconds:
            self._be_back_soon()
            await self._pause()
            await keep_stepping("audit", self.step, self._pause, self.listener)

    async def _pause(self) -> None:
        await asyncio.sleep(self._pause_seconds)

    def _be_back_soon(self) -> None:
        self._pause_seconds = min(FIRST_AUDIT_SECONDS, self._settings.audit_seconds)

    async def step(self) -> bool:
        """Audit one chunk of accounts; return whether the audit goes on.

        A chain that has finished is not asked for anything: its node may be switched off.
        """
        began = time.monotonic()
        course = self._course = self._course or await self._begin()
        chunk = None
        if course is not None:
            chunk = await auditing.read_chunk(
                self.database,
                self._settings,
                course.managers,
                course.after,
                CHUNK_ACCOUNTS,
                everyone=course.everyone,
            )
        if course is None or chunk is None:
            self._course = None
            self._be_back_soon()
            return False
        if await self._audit(course, chunk):
            if chunk.last is None:
                return await self._conclude(course)
            course.after = chunk.last
        # Half of the time the node and the database are there for others alone.
        await asyncio.sleep(min(time.monotonic() - began, MOST_REST_SECONDS))
        return True

    async def _begin(self) -> _Course | None:
        """Take what was missed and is final now up again; look which managers are there."""
        chain_id = self._settings.chain_id
        await audit_findings.owe_missed(self.database, chain_id, self.epoch)
        block = await auditing.read_block(self.database, self._settings)
        if block is None:
            return None
        managers = self._settings.managers
        codes = await read_codes(self.node, [(block.header.hash, m) for m in managers])
        return _Course([m for m, code in zip(managers, codes, strict=True) if code])

    # --- comparing --------------------------------------------------------------------------------

    async def _audit(self, course: _Course, chunk: AuditChunk) -> bool:
        """Compare and repair a chunk; return whether that was all that could be done of it."""
        roots, slots = await self._read(course, chunk)
        suspects, strange = await self._differing(course, chunk, roots, slots)
        todo = suspects[:REPAIRS_PER_STEP]
        # As in the sweep: what is owed again of a taint that is found later ends below this block.
        repairs = Repairs(
            slots=list(strange.values()), roots=[seen for seen in roots if seen.account in strange]
        )
        if strange:
            repairs.headers.append(chunk.block.header)
        repairs.findings += [_of_slots(chunk, seen) for seen in strange.values()]
        tainted = {seen.account for seen in slots if seen.tainted}
        for suspect in todo:
            await self._explain(suspect, chunk, tainted, repairs)
        if repairs.findings:
            owing = await audit_findings.apply_repairs(
                self.database, self._settings.chain_id, self.epoch, course.managers, chunk, repairs
            )
            self._tell(course, repairs.findings)
            say_owed_again(self._settings.name, owing)
            if len(suspects) > len(todo):
                return False
        course.accounts += len(chunk.accounts)
        course.roots_of.update(seen.manager for seen in roots)
        return True

    async def _read(
        self, course: _Course, chunk: AuditChunk
    ) -> tuple[list[RootObservation], list[AccountObservation]]:
        roots: list[RootObservation] = []
        slots: list[AccountObservation] = []
        size = EVERYONE_PER_READ if course.everyone else ACCOUNTS_PER_READ
        for start in range(0, len(chunk.accounts), size):
            accounts = frozenset(chunk.accounts[start : start + size])
            with_slots: frozenset[Address] = frozenset() if course.everyone else accounts
            look = Look(chunk.block.header, accounts, with_slots)
            if chunk.block.settled:
                found = await observe(self.node, self._settings, [look], course.managers)
            else:
                found = await observe_newest(self.node, self._settings, look, course.managers)
            roots += found[0]
            slots += found[1]
        return roots, slots

    async def _differing(
        self,
        course: _Course,
        chunk: AuditChunk,
        roots: Sequence[RootObservation],
        slots: Sequence[AccountObservation],
    ) -> tuple[list[Suspect], dict[Address, AccountObservation]]:
        """Return what is not as stored, and not owed either: roots, and slots by account."""
        chain_id, number = self._settings.chain_id, chunk.block.header.number
        other = [
            seen for seen in roots if chunk.roots[seen.manager, seen.account].root != seen.root
        ]
        wanted: dict[auditing.Key, int | None] = {
            (o.manager, o.account): chunk.roots[o.manager, o.account].block_number for o in other
        }
        covered = await auditing.read_covered(self.database, chain_id, wanted, number)
        suspects = [
            Suspect(chunk.roots[key], seen, covered[key])
            for seen in other
            if (key := (seen.manager, seen.account)) in covered
        ]
        strange = {
            seen.account: seen
            for seen in slots
            if (known := chunk.slots.get(seen.account))
            and known[0] < number
            and not auditing.same_slots(known[1], seen, self._settings.managers)
        }
        # Read with the roots of every manager; of a new one also at the block where they were last.
        for manager in course.managers:
            before = {(manager, a): chunk.slots[a][0] - 1 for a in strange}
            paid = await auditing.read_covered(self.database, chain_id, before, number)
            strange = {a: seen for a, seen in strange.items() if (manager, a) in paid}
        return suspects, strange

    def _tell(self, course: _Course, findings: Sequence[Finding]) -> None:
        found = {(finding.manager, finding.account) for finding in findings}
        course.mismatches += len(found)
        course.mismatches_of.update(manager for manager, _ in found if manager is not None)
        self.listener.mismatches_found(len(found))
        for finding in findings:
            self._say(finding)

    def _say(self, finding: Finding) -> None:
        shown = {
            name: hex_of(value)
            for name in ("manager", "account", "stored_root", "found_root")
            if (value := getattr(finding, name)) is not None
        }
        log.warning(
            "audit_mismatch",
            chain=self._settings.name,
            block=finding.block_number,
            reason=finding.reason,
            previous_block=finding.previous_block,
            **shown,
        )

    async def _explain(
        self,
        suspect: Suspect,
        chunk: AuditChunk,
        tainted: Collection[Address],
        repairs: Repairs,
    ) -> None:
        """Find where a root changed, and why nobody saw it; add both to `repairs`."""
        search = Search(self.database, self.node, self.contracts, suspect, chunk.block.header)
        await search.run()
        is_tainted = suspect.covered.tainted or suspect.stored.account in tainted
        changes = changes_since(suspect.stored, search.known)
        for change in changes:
            found = change.found
            reason = await search.reason(change, tainted=is_tainted)
            if reason == "no_log":
                # Nobody is named; but that the change is of this block is known.
                repairs.attributions.append(by_nobody(found))
            repairs.findings.append(
                Finding(
                    found.block_number,
                    reason,
                    found.manager,
                    found.account,
                    change.previous_root,
                    found.root,
                    change.previous_block,
                )
            )
        if changes:
            # The stored one stays as it is: what was seen at a block's hash is not taken back.
            read = [n for n in search.known if n != suspect.stored.block_number]
            repairs.roots += [search.known[number] for number in read]
            repairs.headers += [search.headers[number] for number in read]

    # --- all roots of a manager -------------------------------------------------------------------

    async def _conclude(self, course: _Course) -> bool:
        """Say of each manager whether all its roots are known; return whether the audit goes on.

        Where all were known before and now are not, though no root of those that were read has
        changed, the roots of every watched account are read before anybody is called unknown.
        """
        results = [await self._result(course, manager) for manager in course.managers]
        if not course.everyone and any(result and result.finding for result in results):
            self._course = _Course(course.managers, everyone=True)
            return True
        for result in results:
            if result is not None:
                await audit_findings.record_audit(
                    self.database, self._settings.chain_id, self.epoch, result
                )
                if result.finding is not None:
                    self._say(result.finding)
        say = log.info if course.mismatches else log.debug
        say(
            "audit_finished",
            chain=self._settings.name,
            accounts=course.accounts,
            roots_read=course.roots_of.total(),
            mismatches=course.mismatches,
            seconds=round(time.monotonic() - course.began, 2),
        )
        self._course = None
        self._pause_seconds = self._settings.audit_seconds
        return False

    async def _result(self, course: _Course, manager: Address) -> AuditResult | None:
        """Return what this audit says of a manager; None: nothing is to be audited any more."""
        known = await auditing.read_known_roots(
            self.database, self._settings, manager, MAX_TRIE_ROOTS + 1
        )
        if known is None:
            return None
        proof = await self._prove(manager, known)
        finding = None
        mismatches = course.mismatches_of[manager]
        if proof == "others_exist" and known.complete_at is not None and not mismatches:
            finding = Finding(
                known.block.header.number,
                "unknown_user",
                manager,
                previous_block=known.complete_at,
            )
        return AuditResult(
            manager, known.block, course.roots_of[manager], mismatches, proof, finding
        )

    async def _prove(self, manager: Address, known: KnownRoots) -> StorageProof:
        """Compare the known roots with what the node proves of the manager's whole storage."""
        if not self._gives_proofs or len(known.roots) > MAX_TRIE_ROOTS:
            return "unavailable"
        try:
            proved = await read_storage_root(self.node, manager, known.block.header.hash)
        except NodeError:
            return "unavailable"  # the roots were read all the same; the next audit asks again
        if proved is None:
            self._gives_proofs = False
            return "unavailable"
        if await asyncio.to_thread(_is_all, known.roots, proved):
            return "complete"
        # What is still owed may be all that lacks.
        return "others_exist" if known.nothing_owed else "unavailable"


def _is_all(roots: Sequence[tuple[Address, Hash32]], proved: Hash32) -> bool:
    words = [(root_slot(account), root) for account, root in roots]
    if storage_root(words) == proved:
        return True
    cleared = any(not any(root) for _, root in roots)
    return cleared and storage_root(words, with_zeros=True) == proved


def _of_slots(chunk: AuditChunk, seen: AccountObservation) -> Finding:
    return Finding(
        seen.block_number,
        "changed_slots",
        account=seen.account,
        previous_block=chunk.slots[seen.account][0],
    )
