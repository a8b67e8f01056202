// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import "contracts/smart-account/modules/SessionValidationModules/ISessionValidationModule.sol";

/// The seed document's session validation module.
/// sessionKeyData = abi.encode(address signer, address recipient, uint256 tokenId): the signer may
/// mint that token to that recipient on the seed's ERC-1155, any number of times, and nothing else.
contract SeedSessionModule is ISessionValidationModule {
    address public constant TOKEN = 0x909E30bdBCb728131E3F8d17150eaE740C904649;
    bytes4 public constant MINT_TO = 0x2baf2acb;

    function validateSessionUserOp(
        UserOperation calldata op,
        bytes32 userOpHash,
        bytes calldata sessionKeyData,
        bytes calldata sessionKeySignature
    ) external pure override returns (bool) {
        bytes4 selector = bytes4(op.callData[0:4]);
        require(
            selector == EXECUTE_OPTIMIZED_SELECTOR ||
                selector == EXECUTE_SELECTOR,
            "SeedSV Invalid Selector"
        );
        (address target, uint256 value, bytes memory data) = abi.decode(
            op.callData[4:],
            (address, uint256, bytes)
        );
        address signer = _check(target, value, data, sessionKeyData);
        return
            ECDSA.recover(
                ECDSA.toEthSignedMessageHash(userOpHash),
                sessionKeySignature
            ) == signer;
    }

    function validateSessionParams(
        address target,
        uint256 value,
        bytes calldata data,
        bytes calldata sessionKeyData,
        bytes calldata
    ) external pure override returns (address) {
        return _check(target, value, data, sessionKeyData);
    }

    function _check(
        address target,
        uint256 value,
        bytes memory data,
        bytes calldata sessionKeyData
    ) private pure returns (address) {
        (address signer, address recipient, uint256 tokenId) = abi.decode(
            sessionKeyData,
            (address, address, uint256)
        );
        require(target == TOKEN, "SeedSV Wrong Contract");
        require(value == 0, "SeedSV Non Zero Value");
        require(
            data.length == 100 && bytes4(data) == MINT_TO,
            "SeedSV Wrong Function"
        );
        address calledRecipient;
        uint256 calledTokenId;
        assembly {
            calledRecipient := mload(add(data, 36))
            calledTokenId := mload(add(data, 68))
        }
        require(calledRecipient == recipient, "SeedSV Wrong Recipient");
        require(calledTokenId == tokenId, "SeedSV Wrong Token");
        return signer;
    }
}
