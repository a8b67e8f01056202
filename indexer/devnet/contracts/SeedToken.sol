// SPDX-License-Identifier: MIT
pragma solidity 0.8.17;

import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";

/// The seed document's ERC-1155. Anyone may mint: only the shape of calls and logs matters here.
/// It keeps nothing from its constructor, so its run-time code can be placed at any address.
contract SeedToken is ERC1155 {
    constructor() ERC1155("") {}

    /// Selector 0x2baf2acb, as the seed document calls it.
    function mintTo(address to, uint256 id, uint256 amount) external {
        _mint(to, id, amount, "");
    }

    function mintBatchTo(
        address to,
        uint256[] calldata ids,
        uint256[] calldata amounts
    ) external {
        _mintBatch(to, ids, amounts, "");
    }

    function burn(address from, uint256 id, uint256 amount) external {
        require(
            from == msg.sender || isApprovedForAll(from, msg.sender),
            "SeedToken: not allowed"
        );
        _burn(from, id, amount);
    }

    function burnBatch(
        address from,
        uint256[] calldata ids,
        uint256[] calldata amounts
    ) external {
        require(
            from == msg.sender || isApprovedForAll(from, msg.sender),
            "SeedToken: not allowed"
        );
        _burnBatch(from, ids, amounts);
    }

    function setUri(string calldata value, uint256 id) external {
        emit URI(value, id);
    }
}
