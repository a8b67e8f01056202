"""The one decision: does the chain have, for one (manager, account), what clients stored?

Everything that shows a verdict (views, metrics, notifications, the API) shows this one.

Which set is expected is said in expected_set.py; what is wrong is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from indexer.core import explain
from indexer.core.expected_set import (
    later,
    stand,
    store_order,
    stored_instant,
)
from indexer.core.expiry import expiry_warnings, not_expired
from indexer.core.root_search import Base, Search, search_root
from indexer.core.types import ZERO_HASH, Hash32
from indexer.core.verdict_values import (
    AccountState,
    Cause,
    Decision,
    Flag,
    Instant,
    RootChange,
    Settings,
    Severity,
    StoredSession,
    StoredSet,
    Verdict,
    VerdictInputs,
    VerdictWarning,
    severity_of,
)
from indexer.core.wishes import Wish, bases_of, called_revoked

__all__ = [
    "AccountState",
    "Cause",
    "Decision",
    "Instant",
    "RootChange",
    "SearchRoot",
    "Settings",
    "Severity",
    "StoredSession",
    "StoredSet",
    "Verdict",
    "VerdictInputs",
    "VerdictWarning",
    "decide",
    "severity_of",
]

SearchRoot = Callable[[Sequence[Base], Hash32], Search]
"""root_search.search_root, or something that remembers its answers."""


def decide(
    inputs: VerdictInputs,
    *,
    head_number: int,
    head_time: int,
    confirmed_at: float,
    settings: Settings,
    search: SearchRoot = search_root,
) -> Decision:
    """Decide one (manager, account) as of the indexed block `head_number`.

    Expiry is judged at `head_time` (block time). Grace runs from `stored_at` and is over once
    `confirmed_at`, the database's time just before the head of the last finished step was asked
    for, has reached its end: only then can that head not hide a landing in time. Only a root
    that is no stored set's, with no set within its grace, is searched for.
    """
    case = _Case(inputs, head_number, head_time, confirmed_at, settings, search)
    return case.decide()


class _Case:
    """One decision under way: what follows from the inputs, and when time will change it."""

    def __init__(
        self,
        inputs: VerdictInputs,
        head_number: int,
        head_time: int,
        confirmed_at: float,
        settings: Settings,
        search: SearchRoot,
    ) -> None:
        self.inputs = inputs
        self.head_number = head_number
        self.head_time = head_time
        self.confirmed_at = confirmed_at
        self.settings = settings
        self.search = search
        self.recheck_at: list[float] = []
        self.recheck_block_time: list[int] = []

        standing = stand(inputs)
        self.standing = standing
        self.sets = standing.sets
        self.revoked = called_revoked(standing.sets)
        self.observed = inputs.first_observation is not None
        self.last = standing.last
        self.root = standing.root
        self.on_chain = standing.on_chain
        self.awaited = standing.awaited
        self.expected = standing.awaited or standing.on_chain

    def decide(self) -> Decision:
        if not self.observed:
            return self._unknown()
        if not self.sets:
            return self._nothing_stored()
        flag = self._standing_flag()
        waiting = self.awaited is not None and not self._grace_is_over(self.awaited)
        if flag is None and not waiting:
            flag = self._mismatch()
        if flag is not None:
            return self._drifted(flag)
        return self._pending() if waiting else self._in_sync()

    # --- instants -----------------------------------------------------------------------------

    def _grace_end(self, stored: StoredSet) -> float:
        return stored.stored_at + self.settings.grace_seconds

    def _grace_is_over(self, stored: StoredSet) -> bool:
        end = self._grace_end(stored)
        if self.confirmed_at >= end:
            return True
        self.recheck_at.append(end)
        return False

    def _late(self, stored: StoredSet) -> Instant:
        return Instant(stored.stored_block, self._grace_end(stored))

    def _mismatch_since(self) -> Instant:
        """When a root that is not the expected one began to count as drift."""
        if self.awaited is not None:
            return self._late(self.awaited)
        return later(stored_instant(self.sets[0]), self.standing.changed())

    def _valid(self, sessions: Iterable[StoredSession]) -> list[StoredSession]:
        """Those not expired at the head; notes when the last of them expires."""
        valid, flips = not_expired(sessions, self.head_time)
        self.recheck_block_time.extend(flips)
        return valid

    # --- causes -------------------------------------------------------------------------------

    def _standing_flag(self) -> Flag | None:
        """What is wrong whatever set is expected; a grace does not excuse it."""
        stored = stored_instant(self.sets[0])
        states = self.inputs.account_states
        if states and states[-1].tainted:
            began = self.standing.began(lambda state: state.tainted)
            return Flag("tainted_account", later(stored, began), rests_on_block=began.block_number)
        if self.last is not None and self.last.attribution == "session_key":
            return Flag("rotated_by_session_key", later(stored, self.standing.changed()))
        # Before the first root the manager is rightly not enabled: one operation does both.
        if self.root != ZERO_HASH and states and states[-1].manager_enabled is False:
            began = self.standing.began(lambda state: state.manager_enabled is False)
            return Flag(
                "manager_disabled",
                later(stored, self.standing.changed(), began),
                rests_on_block=began.block_number,
            )
        return self._module_without_code()

    def _module_without_code(self) -> Flag | None:
        judged, since = self.on_chain, self.standing.changed()
        if judged is None and self.awaited is not None:
            # Within the grace the module may be deployed by the operation that is awaited.
            if self.confirmed_at < self._grace_end(self.awaited):
                return None
            judged, since = self.awaited, self._late(self.awaited)
        if judged is None:
            return None
        missing = self.inputs.modules_without_code
        hit = [s for s in judged.sessions if s.session_validation_module in missing]
        modules = dict.fromkeys(s.session_validation_module for s in self._valid(hit))
        if not modules:
            return None
        return Flag(
            "module_without_code", later(stored_instant(judged), since), named=tuple(modules)
        )

    def _mismatch(self) -> Flag | None:
        """What is wrong with the root; only asked when no set is within its grace."""
        since = self._mismatch_since()
        if self.root == ZERO_HASH:
            if self.last is not None:
                return Flag("cleared_on_chain", since)
            # A root that sits elsewhere did land: naming the place says more than `never_landed`.
            return self._elsewhere(since) or Flag("never_landed", since)
        if self.on_chain is None:
            return self._elsewhere(since) or self._arranged(since)
        if self.awaited is None:
            return self._revocation_undone(self.on_chain)
        return self._other_set(self.on_chain, self.awaited, since)

    def _elsewhere(self, since: Instant) -> Flag | None:
        wanted = (self.awaited or self.sets[-1]).root
        managers = tuple(m for m, root in sorted(self.inputs.other_roots.items()) if root == wanted)
        return Flag("manager_mismatch", since, named=managers) if managers else None

    def _other_set(self, on_chain: StoredSet, awaited: StoredSet, since: Instant) -> Flag:
        """A stored set stands where another one is overdue."""
        wish = self._wish(awaited)
        dropped = self._leaves(wish.unwanted(s.leaf for s in on_chain.sessions))
        if store_order(on_chain) < store_order(awaited):
            newer_was_there = any(
                s.root in self.standing.earlier_roots and s.root != self.root
                for s in self.sets
                if store_order(s) > store_order(on_chain)
            )
            cause: Cause = "reverted_to_older_set" if newer_was_there else "superseded"
            return Flag(cause, since, leaves=dropped)
        if dropped:
            return Flag("revoked_still_provable", since, leaves=dropped)
        lost = self._leaves(wish.missing(s.leaf for s in on_chain.sessions))
        if lost:
            return Flag("lost_sessions", since, leaves=lost)
        return Flag("order_or_duplicates", since)

    def _revocation_undone(self, on_chain: StoredSet) -> Flag | None:
        """The set on chain is the expected one, but the client wants some of it gone."""
        return self._dropped_by_newest(on_chain) or self._called_revoked(on_chain)

    def _dropped_by_newest(self, on_chain: StoredSet) -> Flag | None:
        """A newer set, which never landed or is there no more, had dropped some of it."""
        standing, newest = self.standing, self.sets[-1]
        # Sets stored at the same instant (one import) say nothing about which is newer.
        if newest.stored_at <= on_chain.stored_at or newest.root == self.root:
            return None
        was_there = newest.root in standing.earlier_roots
        if not (
            standing.was_meant(newest) if was_there else standing.stored_while_observed(newest)
        ):
            return None
        dropped = self._leaves(self._wish(newest).unwanted(s.leaf for s in on_chain.sessions))
        if not dropped:
            return None
        if was_there:
            since = later(stored_instant(newest), self.standing.changed())
            return Flag("reverted_to_older_set", since, leaves=dropped)
        return self._overdue_revocation(dropped)

    def _called_revoked(self, on_chain: StoredSet) -> Flag | None:
        """Its store calls some of it revoked, which the vendor's client does without effect.

        A claim has no time of its own, so its grace is that of the newest stored set, whichever
        that is: all sets of one import share it, and a claim told later by importing a known set
        again has none, since no new set is then on its way that could carry it out.
        """
        claimed = self._leaves(s for s in on_chain.sessions if s.leaf in self.revoked)
        return self._overdue_revocation(claimed) if claimed else None

    def _overdue_revocation(self, leaves: tuple[Hash32, ...]) -> Flag | None:
        newest = self.sets[-1]
        if not self._grace_is_over(newest):
            return None
        since = max(self._late(newest), self.standing.changed(), key=lambda instant: instant.time)
        return Flag("revoked_still_provable", since, leaves=leaves)

    def _arranged(self, since: Instant) -> Flag:
        """The root is no stored set's: judge what an arrangement of stored sessions proves.

        A revoked session that still works says more than order or loss.
        """
        search = self.search(bases_of(self.sets), self.root)
        if search.found is None:
            return Flag("unknown_root", since, search=search)
        wish = self._wish(self.awaited or self.sets[-1])
        unwanted = self._leaves(wish.unwanted(search.found.leaves))
        if unwanted:
            return Flag("revoked_still_provable", since, leaves=unwanted, search=search)
        lost = self._leaves(wish.missing(search.found.leaves))
        if lost:
            return Flag("lost_sessions", since, leaves=lost, search=search)
        return Flag("order_or_duplicates", since, search=search)

    def _wish(self, wanted: StoredSet) -> Wish:
        return Wish(self.sets, wanted, self.revoked)

    def _leaves(self, sessions: Iterable[StoredSession]) -> tuple[Hash32, ...]:
        """Return the leaves of those that have not expired, once each."""
        return tuple(dict.fromkeys(session.leaf for session in self._valid(sessions)))

    # --- answers ------------------------------------------------------------------------------

    def _warnings(self) -> tuple[VerdictWarning, ...]:
        judged = self.on_chain or self.expected
        warnings: tuple[VerdictWarning, ...] = ()
        if judged is not None:
            warnings, flips = expiry_warnings(
                judged.sessions,
                in_root=self.on_chain is not None,
                head_time=self.head_time,
                soon_seconds=self.settings.expiring_soon_seconds,
            )
            self.recheck_block_time.extend(flips)
        # A set that is awaited may have been on chain where nobody could look.
        doubtful = self.inputs.past_unreadable and self.awaited is not None
        return (*warnings, "unreadable_state") if self.inputs.unreadable or doubtful else warnings

    def _facts(self, since: Instant, flag: Flag | None = None) -> explain.Facts:
        # Where nothing is awaited, what a cause complains about is the newest stored set.
        named = self.expected
        if flag is not None and self.awaited is None:
            named = self.sets[-1]
        return explain.Facts(
            root=self.root,
            root_block=self.standing.changed().block_number,
            on_chain_set_id=self.on_chain.set_id if self.on_chain else None,
            expected_set_id=named.set_id if named else None,
            expected_root=named.root if named else None,
            since_block=since.block_number,
            leaves=flag.leaves if flag else (),
            named=flag.named if flag else (),
            revoked=self.revoked,
            change=self.last,
            search=flag.search if flag else None,
            past_unreadable=self.inputs.past_unreadable,
        )

    def _drifted(self, flag: Flag) -> Decision:
        explanation = explain.explain_cause(flag.cause, self._facts(flag.since, flag))
        severity = severity_of(flag.cause, revoked_provable=bool(flag.leaves))
        return self._answer("drifted", severity, flag.since, explanation, flag)

    def _pending(self) -> Decision:
        assert self.awaited is not None
        since = stored_instant(self.awaited)
        return self._answer("pending", "info", since, explain.explain_pending(self._facts(since)))

    def _in_sync(self) -> Decision:
        assert self.on_chain is not None
        since = later(stored_instant(self.on_chain), self.standing.changed())
        return self._answer("in_sync", "info", since, explain.explain_in_sync(self._facts(since)))

    def _nothing_stored(self) -> Decision:
        since = self.standing.changed()
        if self.root == ZERO_HASH:
            return self._answer("empty", "info", since, explain.explain_empty())
        text = explain.explain_unmanaged(self._facts(since))
        return self._answer("unmanaged", "info", since, text)

    def _unknown(self) -> Decision:
        since = (
            stored_instant(self.sets[0])
            if self.sets
            else Instant(self.head_number, float(self.head_time))
        )
        text = explain.explain_unknown(unreadable=self.inputs.unreadable)
        return self._answer("unknown", "warning" if self.sets else "info", since, text)

    def _answer(
        self,
        verdict: Verdict,
        severity: Severity,
        since: Instant,
        explanation: str,
        flag: Flag | None = None,
    ) -> Decision:
        warnings = self._warnings()
        rests_on = [
            block
            for block in (
                self.standing.changed().block_number if self.observed else None,
                flag.rests_on_block if flag else None,
            )
            if block is not None
        ]
        return Decision(
            verdict=verdict,
            cause=flag.cause if flag else None,
            warnings=warnings,
            severity=severity,
            since_block=since.block_number,
            since_time=since.time,
            explanation=explanation,
            on_chain_root=self.root if self.observed else None,
            on_chain_set_id=self.on_chain.set_id if self.on_chain else None,
            expected_root=self.expected.root if self.expected else None,
            expected_set_id=self.expected.set_id if self.expected else None,
            observed_block=max(rests_on, default=None),
            recheck_at=min(self.recheck_at, default=None),
            recheck_block_time=min(
                (t for t in self.recheck_block_time if t > self.head_time), default=None
            ),
        )
