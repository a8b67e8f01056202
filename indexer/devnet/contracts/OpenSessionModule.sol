// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import "contracts/smart-account/modules/SessionValidationModules/ISessionValidationModule.sol";

/// A session validation module that permits every call: its session key can rotate the root.
/// sessionKeyData = abi.encode(address signer).
contract OpenSessionModule is ISessionValidationModule {
    function validateSessionUserOp(
        UserOperation calldata,
        bytes32 userOpHash,
        bytes calldata sessionKeyData,
        bytes calldata sessionKeySignature
    ) external pure override returns (bool) {
        return
            ECDSA.recover(
                ECDSA.toEthSignedMessageHash(userOpHash),
                sessionKeySignature
            ) == abi.decode(sessionKeyData, (address));
    }

    function validateSessionParams(
        address,
        uint256,
        bytes calldata,
        bytes calldata sessionKeyData,
        bytes calldata
    ) external pure override returns (address) {
        return abi.decode(sessionKeyData, (address));
    }
}
