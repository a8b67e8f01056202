// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

/// A bundler contract: the transaction's `to` is this, not the EntryPoint.
contract BundlerWrapper {
    function relay(address entryPoint, bytes[] calldata calls) external {
        for (uint256 i; i < calls.length; ++i) {
            (bool ok, bytes memory answer) = entryPoint.call(calls[i]);
            if (!ok) {
                assembly {
                    revert(add(answer, 32), mload(answer))
                }
            }
        }
    }
}

/// Keeps a call in storage and makes it later: the later transaction's input holds nothing of it.
contract OpaqueForwarder {
    address private _target;
    bytes private _call;

    function store(address target, bytes calldata call) external {
        _target = target;
        _call = call;
    }

    function run() external {
        (bool ok, bytes memory answer) = _target.call(_call);
        if (!ok) {
            assembly {
                revert(add(answer, 32), mload(answer))
            }
        }
    }
}
