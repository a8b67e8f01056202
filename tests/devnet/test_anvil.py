"""The local node: starts at once, behaves as told, and never outlives whoever started it."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from indexer.devnet import addresses as at
from indexer.devnet.anvil import AnvilOptions, running_anvil
from indexer.devnet.rpc import DevnetRpcError, Rpc
from indexer.errors import NodeUnreachableError

HOLD = """
import asyncio, sys
from pathlib import Path
from indexer.devnet.anvil import running_anvil
async def main():
    async with running_anvil(Path(sys.argv[1])) as node:
        print(node.process_id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def homes() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"sessionwatch-anvil-{os.getpid()}-*"))


async def test_a_node_leaves_nothing_behind(toolchain):
    """After the block the process has ended and its folder of states is gone."""
    before = homes()
    async with running_anvil(toolchain.anvil) as node:
        assert len(homes() - before) == 1
        assert await node.rpc.call("eth_chainId") == hex(80001)
    with pytest.raises(ProcessLookupError):
        os.kill(node.process_id, 0)
    assert homes() == before


def test_a_node_dies_with_a_killed_parent(toolchain):
    """A parent that is killed, so that nothing of it can clean up, takes the node with it."""
    command = [sys.executable, "-c", HOLD, str(toolchain.anvil)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        node = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        ended, _, _ = select.select([node], [], [], 10)
        os.close(node)
    assert ended


@pytest.fixture
def orphaned_home():
    """A folder of states whose owner is gone."""
    with subprocess.Popen(["true"]) as gone:
        pass
    left = Path(tempfile.mkdtemp(prefix=f"sessionwatch-anvil-{gone.pid}-"))
    (left / "state").write_text("a lot")
    return left


async def test_the_next_node_sweeps_what_a_killed_one_left(toolchain, orphaned_home):
    """Folders of states whose process is gone are removed; they can hold gigabytes."""
    async with running_anvil(toolchain.anvil):
        left = [path.name for path in orphaned_home.parent.iterdir()]
    assert orphaned_home.name not in left


async def test_a_binary_that_is_no_node_is_refused(tmp_path):
    """What the program said is in the error, and nothing hangs."""
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\necho not today\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(NodeUnreachableError, match="not today"):
        async with running_anvil(program):
            pass


async def test_two_nodes_take_two_ports(toolchain):
    """Nodes that start at the same time never get in each other's way."""
    async with running_anvil(toolchain.anvil) as one, running_anvil(toolchain.anvil) as other:
        assert one.port != other.port
        await one.rpc.mine(3)
        assert await one.rpc.block_number() == 3
        assert await other.rpc.block_number() == 0


async def test_finality_follows_the_epoch(toolchain):
    """With one slot in an epoch the finalized block is two behind the tip."""
    async with running_anvil(toolchain.anvil, AnvilOptions(slots_in_an_epoch=1)) as node:
        await node.rpc.mine(10)
        finalized = await node.rpc.call("eth_getBlockByNumber", "finalized", False)
        assert int(finalized["number"], 16) == 8


async def test_pruned_history_is_refused(toolchain):
    """A node that keeps few states answers old ones with an error, not with zero."""
    async with running_anvil(toolchain.anvil, AnvilOptions(prune_history=4)) as node:
        await node.rpc.mine(200)
        with pytest.raises(DevnetRpcError):
            await node.rpc.code(b"\x01" * 20, 1)


async def test_blocks_come_by_themselves(toolchain):
    """With a block time a transaction waits for the next block, and gets into it."""
    async with running_anvil(toolchain.anvil, AnvilOptions(block_seconds=0.2)) as node:
        found = await node.rpc.receipt(await node.rpc.send(at.BUNDLER, at.STRANGER))
        assert int(found["blockNumber"], 16) >= 1
        assert await node.rpc.call("anvil_getAutomine") is False


async def test_a_reorg_replaces_blocks_and_keeps_the_height(toolchain):
    """anvil_reorg: other hashes from the fork on; a rollback and a revert lower the head."""
    async with running_anvil(toolchain.anvil) as node:
        await node.rpc.mine(2)
        snapshot = await node.rpc.snapshot()
        await node.rpc.mine(4)
        before = [await _hash(node.rpc, number) for number in range(7)]
        await node.rpc.reorg(3)
        after = [await _hash(node.rpc, number) for number in range(7)]
        assert after[:4] == before[:4]
        assert not set(after[4:]) & set(before[4:])
        await node.rpc.rollback(1)
        assert await node.rpc.block_number() == 5
        await node.rpc.revert(snapshot)
        assert await node.rpc.block_number() == 2


async def _hash(rpc: Rpc, number: int) -> str:
    return (await rpc.call("eth_getBlockByNumber", hex(number), False))["hash"]


async def test_an_error_of_the_node_is_raised_with_its_code(toolchain):
    """An error object is never a result, alone or in a batch."""
    async with running_anvil(toolchain.anvil) as node:
        with pytest.raises(DevnetRpcError) as caught:
            await node.rpc.call("no_such_method")
        assert caught.value.code == -32601
        with pytest.raises(DevnetRpcError):
            await node.rpc.batch([("eth_chainId", []), ("no_such_method", [])])
