"""What an audit of many accounts asks of a node, and in how large pieces."""

from __future__ import annotations

from dataclasses import replace

from indexer.auditing import ACCOUNTS_PER_READ, CHUNK_ACCOUNTS, Auditor
from indexer.chain.rpc import Node
from indexer.chain.slots import implementation_slot
from indexer.core.merkle import root_slot
from indexer.core.passes import all_passes
from indexer.core.settings import ChainSettings
from indexer.core.types import ZERO_ADDRESS, Address, Hash32
from indexer.devnet import addresses as at
from indexer.filters import Contracts
from indexer.store import chain_row, live
from indexer.store.chain_row import Connection
from indexer.store.observations import write_blocks
from indexer.store.pool import Database
from tests.sim.node import SimNode
from tests.sim.settings import chain_settings
from tests.sim.story import word
from tests.test_history_order import Nobody

ACCOUNTS = [Address((n << 100).to_bytes(20)) for n in range(1, 5001)]


class Listener(Nobody):
    found = 0

    def mismatches_found(self, count: int) -> None:
        self.found += count


async def test_five_thousand_accounts(database_url: str, connection: Connection) -> None:
    """A request for each ninety of them; none where audits are off or the chain has finished."""
    async with SimNode(finality_depth=0) as node:
        roots = {a: Hash32(bytes(12) + a) for a in ACCOUNTS}
        slots = {(at.MANAGER, root_slot(a)): root for a, root in roots.items()}
        slots |= {(a, implementation_slot(a)): word(at.IMPLEMENTATION) for a in ACCOUNTS}
        first = node.mine(slots=slots, code={at.MANAGER: b"\x60"})
        node.mine(2)
        settings = replace(
            chain_settings(node.url), managers=(at.MANAGER,), implementations=(at.IMPLEMENTATION,)
        )
        async with Database.open(database_url, max_size=4) as database, Node(settings) as client:
            async with database.transaction() as taking:
                epoch = await chain_row.take_over(taking, settings, all_passes(settings), {})
            await live.start_tail(database, 80001, epoch, node.header(node.tip.number))
            await write_blocks(connection, 80001, [first.header])
            await connection.execute(
                "INSERT INTO chain.account (chain_id, account, source)"
                " SELECT 80001, a, 'factory' FROM unnest($1::bytea[]) AS a",
                ACCOUNTS,
            )
            await connection.execute(
                "INSERT INTO evidence.root_observation"
                " SELECT 80001, $1, a, $2, $3, r FROM unnest($4::bytea[], $5::bytea[]) AS k(a, r)",
                *(at.MANAGER, first.number, first.hash, ACCOUNTS, list(roots.values())),
            )
            await connection.execute(
                "INSERT INTO evidence.account_observation"
                " SELECT 80001, a, $1, $2, $3, $4, '{}', false FROM unnest($5::bytea[]) AS a",
                *(first.number, first.hash, at.IMPLEMENTATION, ZERO_ADDRESS, ACCOUNTS),
            )
            listener = Listener()
            auditor = Auditor(database, client, Contracts(settings, frozenset()), epoch, listener)
            steps = 1
            while await auditor.step():
                steps += 1
            asked = list(node.requests)
            await nobody_asks(database, client, replace(settings, audit_seconds=0), epoch).run()
            finished = replace(settings, end_block=node.tip.number)
            assert not await nobody_asks(database, client, finished, epoch).step()
        row = await connection.fetchrow("SELECT roots_read, mismatches FROM watch.audit")
        assert tuple(row) == (5000, 0)
        assert listener.found == 0
        assert steps == len(ACCOUNTS) // CHUNK_ACCOUNTS + 1
        assert node.requests == asked
        methods = [request[0][0] for request in asked]
        reads = steps_of(CHUNK_ACCOUNTS, ACCOUNTS_PER_READ) * len(ACCOUNTS) // CHUNK_ACCOUNTS
        # The first asks which form of reading the node takes.
        assert methods.count("eth_call") == 1 + reads
        # A read at a lone block is followed by a look whether it was overtaken.
        assert methods.count("eth_getBlockByNumber") == reads
        assert max(len(request) for request in asked) <= 100


def steps_of(whole: int, part: int) -> int:
    return -(-whole // part)


def nobody_asks(database: Database, client: Node, settings: ChainSettings, epoch: int) -> Auditor:
    """An auditor that has nothing to ask: it is off, or its chain has finished."""
    return Auditor(database, client, Contracts(settings, frozenset()), epoch, Listener())
