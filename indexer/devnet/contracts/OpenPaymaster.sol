// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import "@account-abstraction/contracts/interfaces/IPaymaster.sol";

/// Pays for every operation from its deposit. A 21st byte of 1 in paymasterAndData makes the first
/// postOp revert, which rolls the execution back and leaves success=false (postOpReverted).
contract OpenPaymaster is IPaymaster {
    function validatePaymasterUserOp(
        UserOperation calldata op,
        bytes32,
        uint256
    ) external pure override returns (bytes memory context, uint256) {
        bool fail = op.paymasterAndData.length > 20 &&
            op.paymasterAndData[20] == 0x01;
        return (abi.encode(fail), 0);
    }

    function postOp(
        PostOpMode mode,
        bytes calldata context,
        uint256
    ) external pure override {
        if (mode != PostOpMode.postOpReverted) {
            require(!abi.decode(context, (bool)), "postOp refused");
        }
    }
}
