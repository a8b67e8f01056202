"""sessionKeyDataInAbi gives the bytes that ethers gives, or a refusal that says why."""

import json
from pathlib import Path

import pytest
from eth_abi import decode
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.core.session_abi import encode_session_key_data, parse_type
from indexer.core.session_fields import FieldError, checksum
from indexer.core.session_sets import MAX_SESSION_KEY_DATA_BYTES
from indexer.core.types import Address

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads((VECTORS / "sessions.json").read_text())["cases"]
PAIRS = [
    (f"{case['id']}-{index}", item)
    for case in CASES
    for index, item in enumerate(case["sessions"])
    if {"sessionKeyDataInAbi", "sessionKeyData"} <= set(item)
]
ADDRESS = "0x8E09744b738e9Fec4A4df7Ab5621f1857F6Fa175"


@pytest.mark.parametrize("item", [item for _, item in PAIRS], ids=[name for name, _ in PAIRS])
def test_the_encoding_equals_ethers(item):
    """Every published pair encodes to the published bytes."""
    expected = bytes.fromhex(item["sessionKeyData"].removeprefix("0x"))
    assert encode_session_key_data(item["sessionKeyDataInAbi"]) == expected


@given(st.integers(0, 2**256 - 1), st.sampled_from([str, hex, int]))
@settings(deadline=None)
def test_a_number_means_the_same_in_every_spelling(number, spelling):
    """JSON number, decimal text and 0x text of one integer give one encoding."""
    for kind in ("uint256", "uint", "uint256 max"):
        assert encode_session_key_data([[kind], [spelling(number)]]) == number.to_bytes(32, "big")


@given(st.integers(1, 32), st.integers(), st.booleans())
@settings(deadline=None)
def test_a_number_is_in_range_or_refused(size, number, signed):
    """No integer is ever wrapped or cut to the width of its type."""
    bits = size * 8
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    pair = [[f"{'int' if signed else 'uint'}{bits}"], [number]]
    if low <= number <= high:
        data = encode_session_key_data(pair)
        assert int.from_bytes(data, "big", signed=signed) == number
    else:
        with pytest.raises(FieldError, match=r"negative|fit"):
            encode_session_key_data(pair)


values = st.recursive(
    st.one_of(
        st.integers(0, 2**256 - 1).map(lambda n: ("uint256", str(n), n)),
        st.integers(-128, 127).map(lambda n: ("int8", n, n)),
        st.booleans().map(lambda b: ("bool", b, b)),
        st.binary(max_size=70).map(lambda b: ("bytes", "0x" + b.hex(), b)),
        st.binary(min_size=4, max_size=4).map(lambda b: ("bytes4", "0x" + b.hex().upper(), b)),
        st.text(st.characters(codec="utf-8"), max_size=20).map(lambda t: ("string", t, t)),
        st.binary(min_size=20, max_size=20).map(
            lambda b: ("address", checksum(Address(b)), "0x" + b.hex())
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(
            lambda parts: (
                f"tuple({', '.join(f'{kind} m{i}' for i, (kind, _, _) in enumerate(parts))})",
                [given_ for _, given_, _ in parts],
                tuple(read for _, _, read in parts),
            )
        ),
        st.tuples(inner, st.integers(1, 3), st.booleans()).map(
            lambda drawn: (
                f"{drawn[0][0]}[{'' if drawn[2] else drawn[1]}]",
                [drawn[0][1]] * drawn[1],
                (drawn[0][2],) * drawn[1],
            )
        ),
    ),
    max_leaves=8,
)


@given(st.lists(values, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_decoding_gives_the_values_back(parts):
    """decode(encode(x)) = x for nested tuples, arrays and every simple type."""
    types = [kind for kind, _, _ in parts]
    data = encode_session_key_data([types, [given_ for _, given_, _ in parts]])

    canonical = [parse_type(kind).canonical() for kind in types]
    assert decode(canonical, data) == tuple(read for _, _, read in parts)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("uint", "uint256"),
        (" int[] ", "int256[]"),
        ("address payable to", "address"),
        ("tuple(address a, uint b)[2][]", "(address,uint256)[2][]"),
        ("(bytes4,tuple(bool)[])", "(bytes4,(bool)[])"),
        ("tuple ( address to , uint256 [] ids )", "(address,uint256[])"),
    ],
)
def test_types_are_read_as_ethers_reads_them(text, canonical):
    """The word tuple, names and blanks are dropped, uint and int get their width."""
    assert parse_type(text).canonical() == canonical


def test_a_tuple_may_be_an_object_with_the_members_names():
    """A client may give tuples as objects; the order is that of the type, not of the object."""
    kind = "tuple(address to, uint256 max)"
    by_name = encode_session_key_data([[kind], [{"max": "7", "to": ADDRESS}]])
    assert by_name == encode_session_key_data([[kind], [[ADDRESS, 7]]])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uint7",
        "uint264",
        "uint0",
        "int08",
        "bytes0",
        "bytes33",
        "byte",
        "fixed128x18",
        "function",
        "tuple",
        "tuple()",
        "tuple(address",
        "address)",
        "address,uint256",
        "(address,)",
        "uint256[0]",
        "uint256[-1]",
        "uint256[",
        "[]",
        "address; drop",
        "uint256\u0665",
        "x" * 5000,
        "(" * 40 + "bool" + ")" * 40,
    ],
)
def test_what_is_no_type_is_refused(text):
    """A type that Solidity's ABI does not have, or that is a bomb, is never guessed at."""
    with pytest.raises(FieldError):
        parse_type(text)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (None, "null, expected"),
        ([["uint256"]], "a list of 1, expected"),
        ([["uint256"], 7], r"\[1\] is 7, expected a list"),
        ([[], []], "names no types"),
        ([["uint256"], []], "1 types but 0 values"),
        ([[5], [5]], r"\[0\]\[0\] is 5, expected the text of a type"),
        ([["uintt"], [5]], r'\[0\]\[0\] is not an ABI type \("uintt"\)'),
        ([["uint256"], [1.5]], r"\[1\]\[0\] is the fraction 1.5"),
        ([["uint256"], [1e3]], "is the fraction 1000.0"),
        ([["uint256"], [True]], "is true, expected a whole number"),
        ([["uint256"], ["1e3"]], "expected a whole number"),
        ([["uint256"], [""]], "expected a whole number"),
        ([["uint256"], ["9" * 5000]], "(hidden: 5000 hex digits)"),
        ([["uint256"], [-1]], r"is negative \(-1\) for uint256"),
        ([["uint8"], ["256"]], r"does not fit in 8 bits \(256\) for uint8"),
        ([["int8"], [-129]], "does not fit in 8 bits"),
        ([["bool"], ["false"]], "expected true or false"),
        ([["bool"], [1]], "expected true or false"),
        ([["bytes4"], ["0x1234"]], "is 2 bytes long, expected 4 for bytes4"),
        ([["bytes"], ["0x123"]], "odd number of hex digits"),
        ([["bytes"], ["1234"]], "has no 0x"),
        ([["bytes"], ["0x12 34 "]], "not a hex digit"),
        ([["bytes"], [[1, 2]]], "is a list, expected a 0x text"),
        ([["string"], [5]], "expected a text"),
        ([["string"], ["\ud800"]], "surrogate"),
        ([["address"], ["0x12"]], "2 hex digits, an address has 40"),
        (
            [["address"], [ADDRESS.replace("8E", "8e")]],
            "wrong checksum.*right spelling is " + ADDRESS,
        ),
        ([["address[2]"], [[ADDRESS]]], r"has 1 elements, address\[2\] has 2"),
        ([["address[]"], [ADDRESS]], "expected a list for address"),
        ([["tuple(bool a)"], [[True, True]]], "has 2 members"),
        ([["tuple(bool a)"], [{"b": True}]], "member names"),
        ([["(bool)"], [{"": True}]], "member names"),
        ([["tuple(bool a)"], [True]], "expected a list for"),
        ([["tuple(bool a)[]"], [[[True], {"a": 3}]]], r"\[1\]\[0\]\[1\]\.a is 3"),
        ([["bytes"], ["0x" + "00" * 25000]], "encodes to"),
        ([["uint256[]"], [[0] * 1000]], "encodes to more than"),
        ([["bytes[]"], [["0x"] * 1000]], "encodes to more than"),
        ([["bool"] * 1000, [True] * 1000], "encodes to more than"),
    ],
)
def test_a_wrong_pair_is_refused_with_its_place(pair, message):
    """Each mistake is named with the path below the field and what was expected."""
    with pytest.raises(FieldError, match=message):
        encode_session_key_data(pair)


def test_data_of_twenty_thousand_bytes_passes():
    """A set may carry 20 kB of data for one session."""
    data = encode_session_key_data([["bytes"], ["0x" + "ab" * 20_000]])
    assert 20_000 < len(data) <= MAX_SESSION_KEY_DATA_BYTES
