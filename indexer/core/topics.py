"""The events this program understands: topic0, declared form, and which contract emits them.

A topic0 alone proves nothing: Safe shares EnabledModule, the V1 factory AccountCreation,
EntryPoint v0.7 UserOperationEvent, ERC-721 ApprovalForAll. Emitter and topic count decide.
Sources: @account-abstraction/contracts 0.6.0, bcnmy/scw-contracts (SmartAccount 2.0.0, factory
V2, EcdsaOwnershipRegistryModule, SessionKeyManagerModule 1.1.0), EIP-1155.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from indexer.core.abi import EventForm, event_form
from indexer.core.types import Hash32

_forms: dict[Hash32, EventForm] = {}


def _event(topic0: str, declaration: str) -> Hash32:
    topic = Hash32(bytes.fromhex(topic0.removeprefix("0x")))
    _forms[topic] = event_form(declaration)
    return topic


# EntryPoint v0.6
USER_OPERATION_EVENT: Final = _event(
    "0x49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f",
    "UserOperationEvent(bytes32 indexed userOpHash, address indexed sender, "
    "address indexed paymaster, uint256 nonce, bool success, uint256 actualGasCost, "
    "uint256 actualGasUsed)",
)
BEFORE_EXECUTION: Final = _event(
    "0xbb47ee3e183a558b1a2ff0874b079f3fc5478b7454eacf2bfc5af2ff5878f972",
    "BeforeExecution()",
)
ACCOUNT_DEPLOYED: Final = _event(
    "0xd51a9c61267aa6196961883ecf5ff2da6619c37dac0fa92122513fb32c032d2d",
    "AccountDeployed(bytes32 indexed userOpHash, address indexed sender, address factory, "
    "address paymaster)",
)
USER_OPERATION_REVERT_REASON: Final = _event(
    "0x1c4fada7374c0a9ee8841fc38afe82932dc0f8e69012e927f061a8bae611a201",
    "UserOperationRevertReason(bytes32 indexed userOpHash, address indexed sender, "
    "uint256 nonce, bytes revertReason)",
)
SIGNATURE_AGGREGATOR_CHANGED: Final = _event(
    "0x575ff3acadd5ab348fe1855e217e0f3678f8d767d7494c9f9fefbee2e17cca4d",
    "SignatureAggregatorChanged(address indexed aggregator)",
)
DEPOSITED: Final = _event(
    "0x2da466a7b24304f47e87fa2e1e5a81b9831ce54fec19055ce277ca2f39ba42c4",
    "Deposited(address indexed account, uint256 totalDeposit)",
)
WITHDRAWN: Final = _event(
    "0xd1c19fbcd4551a5edfb66d43d2e337c04837afda3482b42bdf569a8fccdae5fb",
    "Withdrawn(address indexed account, address withdrawAddress, uint256 amount)",
)
STAKE_LOCKED: Final = _event(
    "0xa5ae833d0bb1dcd632d98a8b70973e8516812898e19bf27b70071ebc8dc52c01",
    "StakeLocked(address indexed account, uint256 totalStaked, uint256 unstakeDelaySec)",
)
STAKE_UNLOCKED: Final = _event(
    "0xfa9b3c14cc825c412c9ed81b3ba365a5b459439403f18829e572ed53a4180f0a",
    "StakeUnlocked(address indexed account, uint256 withdrawTime)",
)
STAKE_WITHDRAWN: Final = _event(
    "0xb7c918e0e249f999e965cafeb6c664271b3f4317d296461500e71da39f0cbda3",
    "StakeWithdrawn(address indexed account, address withdrawAddress, uint256 amount)",
)

# SmartAccountFactory V2. The V1 factory has the owner where the module stands here.
ACCOUNT_CREATION: Final = _event(
    "0x8967dcaa00d8fcb9bb2b5beff4aaf8c020063512cf08fbe11fec37a1e3a150f2",
    "AccountCreation(address indexed account, address indexed initialAuthModule, "
    "uint256 indexed index)",
)
ACCOUNT_CREATION_WITHOUT_INDEX: Final = _event(
    "0x9a6cbf173278cf7dfadb45414d824f7828c0c94479f1b15e45453653070cf657",
    "AccountCreationWithoutIndex(address indexed account, address indexed initialAuthModule)",
)

# SmartAccount 2.0.0: the emitter is the account.
ENABLED_MODULE: Final = _event(
    "0xecdf3a3effea5783a3c4c2140e677577666428d44ed9d474a0b3a4c9943f8440",
    "EnabledModule(address module)",
)
DISABLED_MODULE: Final = _event(
    "0xaab4fa2b463f581b2b32cb3b7e3b704b9ce37cc209b5fb4d77e593ace4054276",
    "DisabledModule(address module)",
)
EXECUTION_SUCCESS: Final = _event(
    "0x81d12fffced46c214dfae8ab8fa0b9f7b69f70c9d500e33f612f2105deb261ee",
    "ExecutionSuccess(address indexed to, uint256 indexed value, bytes indexed data, "
    "uint8 operation, uint256 txGas)",
)
EXECUTION_FAILURE: Final = _event(
    "0x3ddd038f78c876172d5dbfd730b14c9f8692dfa197ef104eaac6df3f85a0874a",
    "ExecutionFailure(address indexed to, uint256 indexed value, bytes indexed data, "
    "uint8 operation, uint256 txGas)",
)
EXECUTION_FROM_MODULE_SUCCESS: Final = _event(
    "0x6895c13664aa4f67288b25d7a21d7aaa34916e355fb9b6fae0a139a9085becb8",
    "ExecutionFromModuleSuccess(address indexed module)",
)
EXECUTION_FROM_MODULE_FAILURE: Final = _event(
    "0xacd2c8702804128fdb0db2bb49f6d127dd0181c13fd45dbfe16de0930e2bd375",
    "ExecutionFromModuleFailure(address indexed module)",
)
MODULE_TRANSACTION: Final = _event(
    "0x8c014e41cffd68ba64f3e7830b8b2e4ee860509d8deab25ebbcbba2f0405e2da",
    "ModuleTransaction(address module, address to, uint256 value, bytes data, uint8 operation)",
)
CHANGED_FALLBACK_HANDLER: Final = _event(
    "0x06be9a1bea257286cf2afa8205ed494ca9d6a4b41aa58d04238deebada20fb0c",
    "ChangedFallbackHandler(address indexed previousHandler, address indexed handler)",
)
IMPLEMENTATION_UPDATED: Final = _event(
    "0xaa3f731066a578e5f39b4215468d826cdd15373cbc0dfc9cb9bdc649718ef7da",
    "ImplementationUpdated(address indexed oldImplementation, address indexed newImplementation)",
)
SMART_ACCOUNT_RECEIVED_NATIVE_TOKEN: Final = _event(
    "0x00d05ab44e279ac59e855cb75dc2ae23b200ad994797b6f1f028f96a46ecce02",
    "SmartAccountReceivedNativeToken(address indexed sender, uint256 indexed value)",
)

# Ownership modules. OpenZeppelin's form with two addresses has another topic0.
OWNERSHIP_TRANSFERRED: Final = _event(
    "0xc8894f26f396ce8c004245c8b7cd1b92103a6e4302fcbab883987149ac01b7ec",
    "OwnershipTransferred(address indexed smartAccount, address indexed oldOwner, "
    "address indexed newOwner)",
)

# SessionKeyManager 1.1.0 and DAN; the deployed V1 emits nothing at all.
MERKLE_ROOT_UPDATED: Final = _event(
    "0x2d3b238aa223af835b06f5ddeb56c45951f7cf4a29ab728434765ef33cb7598f",
    "MerkleRootUpdated(address smartAccount, bytes32 newRoot)",
)

# ERC-1155
TRANSFER_SINGLE: Final = _event(
    "0xc3d58168c5ae7397731d063d5bbf3d657854427343f4c083240f7aacaa2d0f62",
    "TransferSingle(address indexed operator, address indexed from, address indexed to, "
    "uint256 id, uint256 value)",
)
TRANSFER_BATCH: Final = _event(
    "0x4a39dc06d4c0dbc64b70af90fd698a233a518aa5d07e595d983b8c0526c8f7fb",
    "TransferBatch(address indexed operator, address indexed from, address indexed to, "
    "uint256[] ids, uint256[] values)",
)
APPROVAL_FOR_ALL: Final = _event(
    "0x17307eab39ab6107e8899845ad3d59bd9653f200f220920489ca2b5937696c31",
    "ApprovalForAll(address indexed account, address indexed operator, bool approved)",
)
URI: Final = _event(
    "0x6bb7ff708619ba0610cba295a58592e0451dee2622938c8755667688daf3529b",
    "URI(string value, uint256 indexed id)",
)

ENTRY_POINT_TOPICS: Final = frozenset(
    {
        USER_OPERATION_EVENT,
        BEFORE_EXECUTION,
        ACCOUNT_DEPLOYED,
        USER_OPERATION_REVERT_REASON,
        SIGNATURE_AGGREGATOR_CHANGED,
        DEPOSITED,
        WITHDRAWN,
        STAKE_LOCKED,
        STAKE_UNLOCKED,
        STAKE_WITHDRAWN,
    }
)
FACTORY_TOPICS: Final = frozenset({ACCOUNT_CREATION, ACCOUNT_CREATION_WITHOUT_INDEX})
ACCOUNT_TOPICS: Final = frozenset(
    {
        ENABLED_MODULE,
        DISABLED_MODULE,
        EXECUTION_SUCCESS,
        EXECUTION_FAILURE,
        EXECUTION_FROM_MODULE_SUCCESS,
        EXECUTION_FROM_MODULE_FAILURE,
        MODULE_TRANSACTION,
        CHANGED_FALLBACK_HANDLER,
        IMPLEMENTATION_UPDATED,
        SMART_ACCOUNT_RECEIVED_NATIVE_TOKEN,
    }
)
OWNERSHIP_TOPICS: Final = frozenset({OWNERSHIP_TRANSFERRED})
MANAGER_TOPICS: Final = frozenset({MERKLE_ROOT_UPDATED})
TRANSFER_TOPICS: Final = frozenset({TRANSFER_SINGLE, TRANSFER_BATCH})
ERC1155_TOPICS: Final = TRANSFER_TOPICS | {APPROVAL_FOR_ALL, URI}

FORMS: Final[Mapping[Hash32, EventForm]] = MappingProxyType(_forms)
"""The declared form of every event above, by topic0."""

TRIGGER_EVENTS: Final = frozenset(
    FORMS[topic].name
    for topic in (ACCOUNT_TOPICS - {SMART_ACCOUNT_RECEIVED_NATIVE_TOKEN}) | FACTORY_TOPICS
)
"""Names of events after which the account's root may have changed.

Complete for an account whose implementation is 2.0.0 and whose fallback handler is no manager,
together with its UserOperationEvents: each call whose target a stranger chose ends in one.
"""
