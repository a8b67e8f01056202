// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import {BaseAuthorizationModule} from "contracts/smart-account/modules/BaseAuthorizationModule.sol";
import {ISessionKeyManager} from "contracts/smart-account/interfaces/ISessionKeyManager.sol";
import "contracts/smart-account/modules/SessionValidationModules/ISessionValidationModule.sol";
import "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import "@account-abstraction/contracts/core/Helpers.sol";

/// Behaves like SessionKeyManager 1.1.0, which no registry carries: the same storage layout as V1
/// (mapping at slot 0) and the event MerkleRootUpdated with nothing indexed.
contract EventManager is BaseAuthorizationModule, ISessionKeyManager {
    struct SessionStorage {
        bytes32 merkleRoot;
    }

    string public constant NAME = "Session Key Manager";
    string public constant VERSION = "1.1.0";

    mapping(address => SessionStorage) internal _userSessions;

    event MerkleRootUpdated(address smartAccount, bytes32 newRoot);

    function setMerkleRoot(bytes32 root) external {
        _userSessions[msg.sender].merkleRoot = root;
        emit MerkleRootUpdated(msg.sender, root);
    }

    function getSessionKeys(
        address smartAccount
    ) external view returns (SessionStorage memory) {
        return _userSessions[smartAccount];
    }

    function validateUserOp(
        UserOperation calldata op,
        bytes32 userOpHash
    ) external returns (uint256) {
        (bytes memory moduleSignature, ) = abi.decode(
            op.signature,
            (bytes, address)
        );
        (
            uint48 validUntil,
            uint48 validAfter,
            address module,
            bytes memory sessionKeyData,
            bytes32[] memory proof,
            bytes memory signature
        ) = abi.decode(
                moduleSignature,
                (uint48, uint48, address, bytes, bytes32[], bytes)
            );
        validateSessionKey(
            op.sender,
            validUntil,
            validAfter,
            module,
            sessionKeyData,
            proof
        );
        return
            _packValidationData(
                !ISessionValidationModule(module).validateSessionUserOp(
                    op,
                    userOpHash,
                    sessionKeyData,
                    signature
                ),
                validUntil,
                validAfter
            );
    }

    function validateSessionKey(
        address smartAccount,
        uint48 validUntil,
        uint48 validAfter,
        address module,
        bytes memory sessionKeyData,
        bytes32[] memory proof
    ) public view override {
        bytes32 leaf = keccak256(
            abi.encodePacked(validUntil, validAfter, module, sessionKeyData)
        );
        require(
            MerkleProof.verify(
                proof,
                _userSessions[smartAccount].merkleRoot,
                leaf
            ),
            "SessionNotApproved"
        );
    }

    function isValidSignature(
        bytes32,
        bytes memory
    ) public pure override returns (bytes4) {
        return 0xffffffff;
    }
}
