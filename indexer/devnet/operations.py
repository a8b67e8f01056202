"""User operations of EntryPoint v0.6: calldata, hashes and every form of signature.

Written apart from the decoder in core/, from the contracts: what one side gets wrong, the other
side shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from eth_abi.abi import encode
from eth_keys.datatypes import PrivateKey

from indexer.core.abi import keccak
from indexer.core.merkle import merkle_proof, session_leaf
from indexer.core.types import ZERO_ADDRESS, Address, Hash32, Session
from indexer.devnet import addresses as at
from indexer.devnet.anvil import CHAIN_ID

_OP_TYPES: Final = (
    "(address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)"
)
_SESSION_TYPES: Final = ("uint48", "uint48", "address", "bytes", "bytes32[]", "bytes")

CallForm = Literal["execute_ncC", "execute", "executeBatch_y6U", "executeBatch"]


@dataclass(frozen=True, slots=True)
class Key:
    """A private key of the local chain. Its address is 20 bytes; the secret is never printed."""

    secret: bytes = field(repr=False)
    address: Address

    @classmethod
    def named(cls, name: str) -> Key:
        """Return the key that belongs to a name: the same in every run, worthless elsewhere."""
        secret = keccak(f"sessionwatch devnet key {name}".encode())
        public = PrivateKey(secret).public_key
        return cls(secret=secret, address=Address(public.to_canonical_address()))

    def sign(self, digest: bytes) -> bytes:
        """Return the 65-byte signature over the text-message form of a digest (EIP-191)."""
        message = keccak(b"\x19Ethereum Signed Message:\n32" + digest)
        signature = PrivateKey(self.secret).sign_msg_hash(message).to_bytes()
        return signature[:64] + bytes([signature[64] + 27])


@dataclass(frozen=True, slots=True)
class Call:
    """What an account is told to do: one call."""

    to: Address
    data: bytes
    value_wei: int = 0


@dataclass(frozen=True, slots=True)
class UserOp:
    """UserOperation v0.6. `signature` is abi.encode(bytes module signature, address module)."""

    sender: Address
    nonce: int
    init_code: bytes
    call_data: bytes
    call_gas_limit: int = 800_000
    verification_gas_limit: int = 900_000
    pre_verification_gas: int = 50_000
    max_fee_per_gas_wei: int = 100 * 10**9
    max_priority_fee_per_gas_wei: int = 10**9
    paymaster_and_data: bytes = b""
    signature: bytes = b""

    def hash(self, chain_id: int = CHAIN_ID) -> Hash32:
        """Return the userOpHash: what signers sign and UserOperationEvent names."""
        packed = encode(
            ["address", "uint256", "bytes32", "bytes32", *["uint256"] * 5, "bytes32"],
            [
                self.sender,
                self.nonce,
                keccak(self.init_code),
                keccak(self.call_data),
                self.call_gas_limit,
                self.verification_gas_limit,
                self.pre_verification_gas,
                self.max_fee_per_gas_wei,
                self.max_priority_fee_per_gas_wei,
                keccak(self.paymaster_and_data),
            ],
        )
        types = ["bytes32", "address", "uint256"]
        return keccak(encode(types, [keccak(packed), at.ENTRY_POINT, chain_id]))

    def fields(self) -> tuple[Any, ...]:
        """Return the eleven fields in the contract's order."""
        return (
            self.sender,
            self.nonce,
            self.init_code,
            self.call_data,
            self.call_gas_limit,
            self.verification_gas_limit,
            self.pre_verification_gas,
            self.max_fee_per_gas_wei,
            self.max_priority_fee_per_gas_wei,
            self.paymaster_and_data,
            self.signature,
        )

    def signed_by_owner(self, owner: Key) -> UserOp:
        """Return the operation signed for the ECDSA ownership module."""
        return self.signed_for(at.ECDSA_MODULE, owner.sign(self.hash()))

    def signed_by_session(
        self,
        key: Key,
        sessions: Sequence[Session],
        index: int,
        *,
        manager: Address = at.MANAGER,
    ) -> UserOp:
        """Return the operation signed with session number `index` of a set, with its proof."""
        session = sessions[index]
        values = [*_session_fields(session, sessions, index), key.sign(self.hash())]
        return self.signed_for(manager, encode(_SESSION_TYPES, values))

    def signed_by_router(
        self,
        key: Key,
        sessions: Sequence[Session],
        indexes: Sequence[int],
        *,
        manager: Address = at.MANAGER,
        router: Address = at.ROUTER,
    ) -> UserOp:
        """Return the operation signed for the batched router: one session per call of the batch."""
        used = [(*_session_fields(sessions[i], sessions, i), b"") for i in indexes]
        signature = key.sign(keccak(self.hash() + manager))
        types = ["address", f"({','.join(_SESSION_TYPES)})[]", "bytes"]
        return self.signed_for(router, encode(types, [manager, used, signature]))

    def signed_for(self, module: Address, module_signature: bytes) -> UserOp:
        """Return the operation with this signature for this validation module."""
        signature = encode(["bytes", "address"], [module_signature, module])
        return replace(self, signature=signature)


def _session_fields(session: Session, sessions: Sequence[Session], index: int) -> tuple[Any, ...]:
    proof = merkle_proof([session_leaf(one) for one in sessions], index)
    return (
        session.valid_until,
        session.valid_after,
        session.session_validation_module,
        session.session_key_data,
        proof,
    )


def call_data(signature: str, *arguments: object) -> bytes:
    """Return the calldata of a function given as `name(type,type)`: no spaces, no names."""
    types = _split(signature[signature.index("(") + 1 : -1])
    return keccak(signature.encode())[:4] + encode(types, arguments)


def _split(types: str) -> list[str]:
    found: list[str] = []
    depth = 0
    for piece in types.split(",") if types else []:
        if depth:
            found[-1] += f",{piece}"
        else:
            found.append(piece)
        depth += piece.count("(") - piece.count(")")
    return found


def account_call_data(calls: Sequence[Call], form: CallForm | None = None) -> bytes:
    """Return an operation's callData: a single call, or a batch if there are several.

    No calls give empty callData: the operation is validated and executes nothing.
    """
    if not calls:
        return b""
    form = form or ("execute_ncC" if len(calls) == 1 else "executeBatch_y6U")
    if form in {"execute", "execute_ncC"}:
        (call,) = calls
        return call_data(f"{form}(address,uint256,bytes)", call.to, call.value_wei, call.data)
    return call_data(
        f"{form}(address[],uint256[],bytes[])",
        [call.to for call in calls],
        [call.value_wei for call in calls],
        [call.data for call in calls],
    )


def handle_ops_data(ops: Sequence[UserOp], beneficiary: Address = at.BUNDLER) -> bytes:
    """Return the calldata of EntryPoint.handleOps."""
    signature = f"handleOps({_OP_TYPES}[],address)"
    return call_data(signature, [op.fields() for op in ops], beneficiary)


def handle_aggregated_ops_data(
    ops: Sequence[UserOp],
    *,
    aggregator: Address = ZERO_ADDRESS,
    beneficiary: Address = at.BUNDLER,
) -> bytes:
    """Return the calldata of EntryPoint.handleAggregatedOps with one group."""
    signature = f"handleAggregatedOps(({_OP_TYPES}[],address,bytes)[],address)"
    return call_data(signature, [([op.fields() for op in ops], aggregator, b"")], beneficiary)


def set_root_call(root: bytes, manager: Address = at.MANAGER) -> Call:
    """Return the call by which an account sets its root in a manager."""
    return Call(manager, call_data("setMerkleRoot(bytes32)", root))


def mint_call(to: Address, token_id: int, amount: int, token: Address = at.SEED_TOKEN) -> Call:
    """Return the seed document's mint."""
    return Call(token, call_data("mintTo(address,uint256,uint256)", to, token_id, amount))


def seed_session(
    signer: Address,
    recipient: Address,
    token_id: int,
    *,
    valid_until: int = 0,
    valid_after: int = 0,
) -> Session:
    """Return a session of the seed's module: `signer` may mint that token to that recipient."""
    data = encode(["address", "address", "uint256"], [signer, recipient, token_id])
    return Session(valid_until, valid_after, at.SEED_SESSION_MODULE, data)


def open_session(signer: Address, *, valid_until: int = 0, valid_after: int = 0) -> Session:
    """Return a session whose key may do everything, also replace the root."""
    data = encode(["address"], [signer])
    return Session(valid_until, valid_after, at.OPEN_SESSION_MODULE, data)
