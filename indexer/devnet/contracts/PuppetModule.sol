// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import {UserOperation} from "@account-abstraction/contracts/interfaces/UserOperation.sol";

interface IModularAccount {
    function execTransactionFromModule(
        address to,
        uint256 value,
        bytes memory data,
        uint8 operation,
        uint256 txGas
    ) external returns (bool);

    function execTransactionFromModule(
        address to,
        uint256 value,
        bytes memory data,
        uint8 operation
    ) external returns (bool);

    function execTransactionFromModuleReturnData(
        address to,
        uint256 value,
        bytes memory data,
        uint8 operation
    ) external returns (bool, bytes memory);

    function execBatchTransactionFromModule(
        address[] calldata to,
        uint256[] calldata value,
        bytes[] calldata data,
        uint8[] calldata operations
    ) external returns (bool);
}

/// An account module that anyone may drive: it moves accounts that enabled it, without the
/// EntryPoint, or during validation by a plan stored before. For a local chain only.
contract PuppetModule {
    struct Plan {
        address to;
        bytes data;
    }

    mapping(address => Plan) private _plans;

    function exec(
        address account,
        address to,
        bytes calldata data,
        uint8 operation,
        uint256 txGas
    ) external returns (bool) {
        return
            IModularAccount(account).execTransactionFromModule(
                to,
                0,
                data,
                operation,
                txGas
            );
    }

    function execFour(
        address account,
        address to,
        bytes calldata data,
        uint8 operation
    ) external returns (bool) {
        return
            IModularAccount(account).execTransactionFromModule(
                to,
                0,
                data,
                operation
            );
    }

    function execReturnData(
        address account,
        address to,
        bytes calldata data,
        uint8 operation
    ) external {
        IModularAccount(account).execTransactionFromModuleReturnData(
            to,
            0,
            data,
            operation
        );
    }

    function execBatch(
        address account,
        address[] calldata to,
        bytes[] calldata data,
        uint8[] calldata operations
    ) external {
        IModularAccount(account).execBatchTransactionFromModule(
            to,
            new uint256[](to.length),
            data,
            operations
        );
    }

    /// What this module does to `account` the next time it validates one of its operations.
    function plan(address account, address to, bytes calldata data) external {
        _plans[account] = Plan(to, data);
    }

    function validateUserOp(
        UserOperation calldata op,
        bytes32
    ) external returns (uint256) {
        Plan memory next = _plans[op.sender];
        if (next.to != address(0)) {
            delete _plans[op.sender];
            IModularAccount(op.sender).execTransactionFromModule(
                next.to,
                0,
                next.data,
                0,
                0
            );
        }
        return 0;
    }
}
