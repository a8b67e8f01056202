// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

interface IRootManager {
    function setMerkleRoot(bytes32 root) external;
}

/// Runs by DELEGATECALL in an account's context, so the manager sees the account as caller.
contract RootLibrary {
    function set(address manager, bytes32 root) external {
        IRootManager(manager).setMerkleRoot(root);
    }

    /// Neither the selector, the manager nor the root is in the calldata.
    function setHidden(uint256 seed) external {
        address manager = address(
            uint160(0x000002FbFfedd9B33F4E7156F2DE8D48945E7489)
        );
        IRootManager(manager).setMerkleRoot(
            keccak256(abi.encode("hidden", seed))
        );
    }

    function setSlot(bytes32 slot, bytes32 value) external {
        assembly {
            sstore(slot, value)
        }
    }

    /// The call to the manager runs out of gas, and nobody notices.
    function setWithoutGas(address manager, bytes32 root) external {
        (bool ok, ) = manager.call{gas: 2500}(
            abi.encodeCall(IRootManager.setMerkleRoot, (root))
        );
        ok;
    }

    /// Means to set the root and take it back; run by DELEGATECALL, `this` is the account, whose
    /// fallback knows no `setAndRevert`, so the manager is never reached.
    function setInAccount(address manager, bytes32 root) external {
        try this.setAndRevert(manager, root) {} catch {}
    }

    function setAndRevert(address manager, bytes32 root) external {
        IRootManager(manager).setMerkleRoot(root);
        revert("taken back");
    }

    function emitLog(bytes32[] calldata topics, bytes calldata data) external {
        Logs.emitLog(topics, data);
    }
}

library Logs {
    function emitLog(bytes32[] calldata topics, bytes memory data) internal {
        require(topics.length < 5, "four topics at most");
        assembly {
            let from := add(data, 32)
            let size := mload(data)
            let t := topics.offset
            switch topics.length
            case 0 {
                log0(from, size)
            }
            case 1 {
                log1(from, size, calldataload(t))
            }
            case 2 {
                log2(from, size, calldataload(t), calldataload(add(t, 32)))
            }
            case 3 {
                log3(
                    from,
                    size,
                    calldataload(t),
                    calldataload(add(t, 32)),
                    calldataload(add(t, 64))
                )
            }
            case 4 {
                log4(
                    from,
                    size,
                    calldataload(t),
                    calldataload(add(t, 32)),
                    calldataload(add(t, 64)),
                    calldataload(add(t, 96))
                )
            }
        }
    }
}

/// Sets a root of its own: an account that calls it changes nothing of the account's.
contract RootHelper {
    function set(address manager, bytes32 root) external {
        IRootManager(manager).setMerkleRoot(root);
    }
}

/// An airdrop: the same selector as the manager's, another contract.
contract Airdrop {
    mapping(address => bytes32) public rootOf;
    event MerkleRootUpdated(address smartAccount, bytes32 newRoot);

    function setMerkleRoot(bytes32 root) external {
        rootOf[msg.sender] = root;
        emit MerkleRootUpdated(msg.sender, root);
    }

    function validateSessionKey(address, bytes calldata) external pure {}
}

/// Emits whatever it is told: foreign events under known topics, and a hostile ERC-1155.
contract LogEmitter {
    function emitLog(bytes32[] calldata topics, bytes calldata data) external {
        Logs.emitLog(topics, data);
    }

    /// A text of `size` bytes of value `fill` as `URI(string value, uint256 indexed id)`:
    /// the text is built here so that the transaction stays small.
    function emitUri(uint256 id, uint256 size, bytes1 fill) external {
        bytes memory text = new bytes(size);
        for (uint256 i; i < size; i += 32) {
            uint256 word = uint256(uint8(fill)) *
                0x0101010101010101010101010101010101010101010101010101010101010101;
            assembly {
                mstore(add(add(text, 32), i), word)
            }
        }
        assembly {
            mstore(text, size)
        }
        emit URI(string(text), id);
    }

    event URI(string value, uint256 indexed id);
}

/// Replaces the implementation of an account: whoever calls it moves the account.
contract EvilImplementation {
    function go(address manager, bytes32 root) external {
        IRootManager(manager).setMerkleRoot(root);
    }

    /// Puts an implementation back, so that the account can be used again.
    function restore(address implementation) external {
        assembly {
            sstore(address(), implementation)
        }
    }

    function emitLog(bytes32[] calldata topics, bytes calldata data) external {
        Logs.emitLog(topics, data);
    }
}

interface ISmartAccountInit {
    function init(
        address handler,
        address moduleSetupContract,
        bytes calldata moduleSetupData
    ) external returns (address);
}

/// Makes accounts whose fallback handler is a manager, and sets a root while initialising them.
contract CustomFactory {
    event Made(address indexed account);

    function make(
        bytes calldata proxyCreationCode,
        bytes32 salt,
        address manager,
        bytes32 root,
        address initialModule
    ) external returns (address account) {
        bytes memory code = proxyCreationCode;
        assembly {
            account := create2(0, add(code, 32), mload(code), salt)
        }
        require(account != address(0), "CREATE2 failed");
        ISmartAccountInit(account).init(
            manager,
            address(this),
            abi.encodeCall(this.setup, (root, initialModule))
        );
        emit Made(account);
    }

    /// Called by the account in the middle of its init; the account forwards to its new handler.
    function setup(
        bytes32 root,
        address initialModule
    ) external returns (address) {
        if (root != bytes32(0)) IRootManager(msg.sender).setMerkleRoot(root);
        return initialModule;
    }
}
