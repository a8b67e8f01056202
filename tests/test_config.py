"""Configuration: sources and their order, presets, and all mistakes at once, without values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.config import Settings, _check_retention, default_data_dir, load_settings
from indexer.config_sources import Given, Mistakes
from indexer.core.config_values import ValueMistakeError, checksum_address, parse_address
from indexer.core.presets import (
    ENTRY_POINTS,
    FACTORIES,
    IMPLEMENTATIONS,
    MANAGER_UNRELEASED,
    MANAGERS,
    MUMBAI_ERC1155,
    PRESETS,
)
from indexer.errors import ConfigurationError

VECTORS = Path(__file__).parent / "vectors"
MANAGER = "0x000002FbFfedd9B33F4E7156F2DE8D48945E7489"
MINIMAL = """
[database]
url = "postgresql:///sessionwatch"
[chains.mumbai]
rpc = ["http://127.0.0.1:8545"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sessionwatch.toml"


def load(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text)
    return load_settings(file, environ=environ)


def mistakes(file: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(file, text, **environ)
    assert caught.value.remedy
    return [line.strip().replace(f"{file}:", "") for line in str(caught.value).split("\n")[1:]]


def test_a_preset_fills_in_what_is_not_given(file: Path) -> None:
    """A table named like a preset needs nothing but the node."""
    settings = load(file, MINIMAL)
    (chain,) = settings.chains
    assert (chain.name, chain.chain_id, chain.rpc) == ("mumbai", 80001, ("http://127.0.0.1:8545",))
    assert chain.managers == MANAGERS
    assert (chain.factories, chain.entry_points) == (FACTORIES, ENTRY_POINTS)
    assert chain.implementations == IMPLEMENTATIONS
    assert (chain.erc1155_mode, chain.erc1155) == ("list", (MUMBAI_ERC1155,))
    assert (chain.accounts_mode, chain.finality_depth, chain.start_block) == ("factory", None, None)
    assert (chain.grace_seconds, chain.audit_seconds) == (600, 300)
    assert chain.poll_seconds == 0.25
    assert "80002" in chain.retired
    assert chain.endpoint_names == ("endpoint-1",)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9464)
    assert settings.log.level == "info"
    assert settings.sources["chains.mumbai.rpc"] == f"{file}:5"


def test_transfers_that_touch_known_accounts_are_never_dropped() -> None:
    """retention_blocks is a mistake beside erc1155 = "touching", and only beside it."""
    given = {("chains", "mumbai", "retention_blocks"): Given("a.toml:7", 10_000)}
    for erc1155, lines in (((), 0), ("all", 0), ("touching", 1)):
        found = Mistakes()
        _check_retention("mumbai", erc1155, given, found)
        assert len(found.lines) == lines
    assert found.lines[0].startswith(
        'a.toml:7: chains.mumbai.retention_blocks: found 10000 beside erc1155 = "touching"'
    )
    _check_retention("mumbai", "touching", {}, found)
    assert len(found.lines) == 1


def test_canonical_addresses_are_the_published_ones() -> None:
    """Presets hold the addresses of the vector file, byte for byte."""
    known = json.loads((VECTORS / "addresses.json").read_text())
    assert [checksum_address(m) for m in (*MANAGERS, MANAGER_UNRELEASED)] == known[
        "sessionKeyManagers"
    ]
    assert [checksum_address(a) for a in (*ENTRY_POINTS, *FACTORIES, *IMPLEMENTATIONS)] == [
        known["entryPointV06"],
        known["factoryV2"],
        known["implementation200"],
    ]
    assert checksum_address(MUMBAI_ERC1155) == known["seed"]["erc1155"]
    assert {p.name: p.chain_id for p in PRESETS.values()} == {
        "mumbai": 80001,
        "amoy": 80002,
        "polygon": 137,
    }


def test_every_key_can_be_given(file: Path) -> None:
    """All keys of the reference, in one file, arrive typed."""
    settings = load(
        file,
        f"""
        [database]
        url = "embedded"
        data_dir = "~/data"
        [http]
        listen = "[::1]:0"
        hosts = ["Watch.example", "[2001:db8::1]", "watch.example"]
        [log]
        level = "debug"
        format = "json"
        [chains.mine]
        preset = "amoy"
        chain_id = 31337
        rpc = ["https://node-a.example", "wss://node-b.example"]
        start_block = 5
        poll_seconds = 2
        finality = 12
        accounts = ["{MANAGER.lower()}"]
        erc1155 = "all"
        managers = ["{MANAGER}"]
        factories = ["{MANAGER}"]
        entry_points = ["{MANAGER}"]
        implementations = ["{MANAGER}"]
        routers = []
        grace_seconds = 0
        audit_seconds = 0
        retention_blocks = 10000
        traces = "debug"
        session_layouts = ["{MANAGER}: session_key, recipient, token_id"]
        """,
        HOME="/home/me",
    )
    manager = bytes.fromhex(MANAGER[2:])
    (chain,) = settings.chains
    assert settings.database.embedded
    assert settings.database.data_dir == Path("/home/me/data")
    assert (settings.http.host, settings.http.port) == ("::1", 0)
    assert settings.http.hosts == ("watch.example", "2001:db8::1")
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert (chain.chain_id, chain.start_block, chain.finality_depth) == (31337, 5, 12)
    assert (chain.accounts_mode, chain.accounts) == ("list", (manager,))
    assert (chain.erc1155_mode, chain.erc1155) == ("all", ())
    assert {chain.managers, chain.factories, chain.entry_points, chain.implementations} == {
        (manager,)
    }
    assert (chain.poll_seconds, chain.grace_seconds, chain.audit_seconds) == (2.0, 0, 0)
    assert chain.retention_blocks == 10_000
    assert chain.routers == ()
    assert chain.traces == "debug"
    assert chain.session_layouts == {manager: ("session_key", "recipient", "token_id")}
    assert chain.endpoint_names == ("endpoint-1", "endpoint-2")
    assert chain.retired == ""


def test_environment_over_credentials_over_file_over_presets(file: Path, tmp_path: Path) -> None:
    """The nearer source wins, key by key, and settings remember which one it was."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "database__url").write_text("postgresql://u:p@db/two\n")
    (credentials / "chains__mumbai__rpc").write_text("https://credential.example/key\n")
    (credentials / "tls.pem").write_text("somebody else's")
    settings = load(
        file,
        MINIMAL + 'finality = 3\naccounts = "stored"',
        CREDENTIALS_DIRECTORY=str(credentials),
        SESSIONWATCH_CHAINS__MUMBAI__RPC='["http://localhost:1", "http://[::1]:2"]',
        SESSIONWATCH_CHAINS__MUMBAI__FINALITY="finalized",
        SESSIONWATCH_CHAINS__POLYGON__RPC="https://polygon.example",
        SESSIONWATCH_CHAINS__POLYGON__POLL_SECONDS="1.5",
        SESSIONWATCH_CHAINS__POLYGON__START_BLOCK="12",
        PATH="/bin",
    )
    mumbai, polygon = settings.chains
    assert settings.database.url == "postgresql://u:p@db/two"
    assert mumbai.rpc == ("http://localhost:1", "http://[::1]:2")
    assert (mumbai.finality_depth, mumbai.accounts_mode) == (None, "stored")
    assert mumbai.poll_seconds == 0.25
    assert (polygon.chain_id, polygon.poll_seconds, polygon.start_block) == (137, 1.5, 12)
    assert settings.sources["database.url"] == str(credentials / "database__url")
    assert settings.sources["chains.mumbai.rpc"] == "SESSIONWATCH_CHAINS__MUMBAI__RPC"
    assert settings.sources["chains.mumbai.accounts"] == f"{file}:7"


def test_the_environment_alone_is_enough() -> None:
    """No file is needed, and SESSIONWATCH_CONFIG names one that must exist."""
    environ = {
        "SESSIONWATCH_DATABASE__URL": "embedded",
        "SESSIONWATCH_CHAINS__AMOY__RPC": "https://a.example",
    }
    assert load_settings(None, environ=environ).chains[0].poll_seconds == 1.0
    with pytest.raises(
        ConfigurationError, match=r"/nowhere\.toml: the file cannot be read: No such"
    ):
        load_settings(None, environ=environ | {"SESSIONWATCH_CONFIG": "/nowhere.toml"})


def test_what_a_verb_does_not_need_may_be_missing() -> None:
    """Without chains, or without a database, a verb that needs neither still works."""
    settings = load_settings(None, environ={}, need_chains=False, need_database=False)
    assert (settings.chains, settings.database.embedded) == ((), True)
    with pytest.raises(ConfigurationError, match=r"database\.url: found nothing"):
        load_settings(None, environ={}, need_chains=False)
    with pytest.raises(ConfigurationError, match="found no chain"):
        load_settings(None, environ={"SESSIONWATCH_DATABASE__URL": "embedded"})


def test_the_data_folder_has_a_place_for_root_and_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root keeps data under /var/lib, others in their own data folder."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir({}) == Path("/var/lib/sessionwatch")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_data_dir({"XDG_DATA_HOME": "/x"}) == Path("/x/sessionwatch")
    assert default_data_dir({"HOME": "/home/me"}) == Path("/home/me/.local/share/sessionwatch")


def test_all_mistakes_are_said_at_once(file: Path) -> None:
    """Ten mistakes in three sources give ten lines, each with place, key, found and expected."""
    wrong = "0x000002fbFfedd9B33F4E7156F2DE8D48945E7489"
    found = mistakes(
        file,
        f"""[database]
url = "mysql://user:hunter2@db/x"
[http]
listen = "9464"
[chains.mumbai]
chain_id = "80001"
rpc = ["ftp://node.example/SECRETKEY"]
finalty = 3
managers = ["{wrong}"]
erc1155 = ["0x123"]
poll_seconds = true
[chain.mine]
""",
        SESSIONWATCH_DATABSE__URL="postgresql:///x",
        SESSIONWATCH_CHAINS__MUMBAI__START_BLOCK="-1",
    )
    expected = f"""
        2: database.url: found (hidden) with the scheme mysql,
            expected a postgresql:// URL or "embedded"
        4: http.listen: found "9464", expected host:port, such as "127.0.0.1:9464"
        6: chains.mumbai.chain_id: found "80001", expected a whole number from 1
        7: chains.mumbai.rpc: found item 1 of 1: (hidden) with the scheme ftp,
            expected a URL that begins with http://, https://, ws:// or wss://
        8: chains.mumbai.finalty: not a known key; did you mean chains.mumbai.finality?
        9: chains.mumbai.managers: found item 1 of 1: "{wrong}", a wrong checksum,
            expected {MANAGER}
        10: chains.mumbai.erc1155: found item 1 of 1: "0x123" (3 digits),
            expected an address: 0x and 40 hex digits
        11: chains.mumbai.poll_seconds: found true,
            expected a number of seconds from 0.01 to 3600
        12: chain: not a known key; did you mean chains?
        SESSIONWATCH_DATABSE__URL: not a variable of sessionwatch;
            did you mean SESSIONWATCH_DATABASE__URL?
        SESSIONWATCH_CHAINS__MUMBAI__START_BLOCK: chains.mumbai.start_block: found "-1",
            expected a block number
        """
    wanted = expected.replace("\n            ", " ").strip().split("\n        ")
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("chain_id = 0", "found 0, expected a whole number from 1"),
        ("chain_id = 1.0", "found 1.0, expected a whole number"),
        ("rpc = []", "found an empty list, expected at least one http"),
        ("rpc = [7]", "(hidden), not a text"),
        ('rpc = "node.example/KEY"', "found (hidden), expected a URL"),
        ('rpc = ["http://n.example:99999/KEY"]', "item 1 of 1: (hidden) with the scheme http"),
        ('rpc = ["http://n.example", "http://n.example"]', "item 2 of 2: the URL of item 1"),
        ('rpc = ["wss://node.example/KEY"]', "WebSocket URLs only"),
        ("start_block = 1.5", "expected a block number"),
        ("poll_seconds = 0", "expected a number of seconds"),
        ("poll_seconds = nan", "expected a number of seconds"),
        ('finality = "safe"', 'found "safe", expected "finalized" or a depth'),
        ("finality = -1", 'expected "finalized" or a depth'),
        ('accounts = "all"', 'expected "factory", "stored" or a list'),
        ('erc1155 = "touched"', 'a list of contract addresses, "touching" or "all"'),
        ('erc1155 = "none"', 'expected a list of contract addresses, "touching" or "all"'),
        ("managers = []", "found an empty list, expected a list of contract addresses, at least"),
        (f'managers = ["{MANAGER}", "{MANAGER.lower()}"]', "which is item 1 already"),
        (f'managers = ["0x{"0" * 40}"]', "found item 1 of 1: the zero address"),
        ('managers = ["000002FbFfedd9B33F4E7156F2DE8D48945E7489"]', "expected an address: 0x and"),
        (f'managers = ["{MANAGER}0"]', "(41 digits), expected an address"),
        ("managers = [5]", "found item 1 of 1: 5, expected an address"),
        ("grace_seconds = -1", "expected whole seconds from 0"),
        ("retention_blocks = 9999", "expected a whole number of blocks from 10000"),
        ("retention_blocks = 1e6", "expected a whole number of blocks from 10000"),
        ('traces = "yes"', 'found "yes", expected off, debug or trace'),
        ("session_layouts = [5]", "found item 1 of 1: 5, expected a list of texts such as"),
        ('session_layouts = ["0x12: session_key"]', 'found item 1 of 1: "0x12" (2 digits)'),
        (f'session_layouts = ["{MANAGER}: key"]', "'key' is no part of a layout, which knows"),
        (f'session_layouts = ["{MANAGER}"]', "'' is no part of a layout"),
        (
            f'session_layouts = ["{MANAGER}: session_key", "{MANAGER}: session_key"]',
            "expected each module once",
        ),
        ('preset = "mumbay"', "expected one of mumbai, amoy, polygon"),
        ("last_block = 7", "chains.mumbai.last_block: not a known key"),
        ("end_block = -1", "chains.mumbai.end_block: found -1, expected a block number"),
        ("end_block = 7\nstart_block = 8", "found 7, which is below start_block 8, expected the"),
    ],
)  # fmt: skip
def test_each_wrong_value_of_a_chain_is_one_clear_line(
    file: Path, line: str, expected: str
) -> None:
    """What a chain's key may not be is refused with the key, the finding and the expectation."""
    key = line.split(" =", maxsplit=1)[0]
    rest = "" if key == "rpc" else 'rpc = "http://127.0.0.1:1"\n'
    text = f'[database]\nurl = "embedded"\n[chains.mumbai]\n{rest}{line}\n'
    (found,) = mistakes(file, text)
    assert f"chains.mumbai.{key}" in found
    assert expected in found
    assert "KEY" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[database\nurl = 1", "1:10: not TOML: Expected ']'"),
        ('[database]\nurl = "x"\nurl = "y"', "not TOML: Cannot overwrite a value"),
        ("[database]\nurl = ", "not TOML: Invalid value at the end"),
        ('database = "postgresql://u:hunter2@h/d"', "1: database: found no table"),
        ('[chains]\nmumbai = "https://n.example/hunter2"', "2: chains.mumbai: found no table"),
        ('[[chains]]\nrpc = "https://n.example/hunter2"', "chains: found no table"),
        ('[database]\nurl = "postgresql://h:port/d"', "(hidden) with a bad port or host"),
        ("[database]\nurl = 5", "found (hidden), expected a postgresql:// URL"),
        ('[database]\ndata_dir = "relative"', '2: database.data_dir: found "relative"'),
        ('[http]\nlisten = "localhost:70000"', '2: http.listen: found "localhost:70000"'),
        ('[http]\nlisten = "https://u:hunter2@h:1/x"', 'found "https://h:1/…"'),
        ('[http]\nhosts = ["a", "b:80"]', '2: http.hosts: found item 2 of 2: "b:80"'),
        ('[http]\nhosts = "https://hunter2@h"', 'found "https://h/…"'),
        ('[log]\nlevel = "loud"', 'found "loud", expected debug, info, warning or error'),
        ("[chains.Mumbai]\nrpc = 'http://h'", '1: chains: found "Mumbai", expected a'),
        ("[chains.mumbay]\nrpc = 'http://h'", "1: chains.mumbay.chain_id: found nothing"),
        ("[chains.amoy]\nchain_id = 5", "1: chains.amoy.rpc: found nothing"),
        (
            '[chains.amoy]\nrpc = "http://h"\n[chains.other]\nrpc = "http://i"\nchain_id = 80002',
            "5: chains.other.chain_id: found 80002, which chains.amoy has already",
        ),
    ],
)  # fmt: skip
def test_each_wrong_file_is_one_clear_line(file: Path, text: str, expected: str) -> None:
    """Bad TOML and bad tables are refused with line and column, and no password is repeated."""
    found = [line for line in mistakes(file, text) if expected in line]
    assert len(found) == 1, mistakes(file, text)
    assert "hunter2" not in "".join(mistakes(file, text))


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    """Bytes that are not UTF-8, or a folder in place of a file, are named as such."""
    file.write_bytes(b"[database]\nurl = '\xff'")
    with pytest.raises(ConfigurationError, match=r"not UTF-8 text \(byte 18\)"):
        load_settings(file, environ={})
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load_settings(file.parent, environ={})


def test_wrong_variables_and_credentials_are_named(file: Path, tmp_path: Path) -> None:
    """Bad JSON, a wrong credential name and a missing credentials folder are mistakes as well."""
    credentials = tmp_path / "c"
    credentials.mkdir()
    (credentials / "databse__url").write_text("postgresql://hunter2@h/x")
    (credentials / "database__url").write_bytes(b"\xff")
    # As systemd hands on a folder of ours: what has no "__" is a mistake there, too.
    (credentials / "sessionwatch_database_url").write_text("postgresql://hunter2@h/x")
    found = mistakes(
        file,
        MINIMAL,
        CREDENTIALS_DIRECTORY=str(credentials),
        SESSIONWATCH_CHAINS__MUMBAI__RPC='["https://hunter2.example"',
        SESSIONWATCH_CHAINS__MUMBAI__MANAGERS="[1,",
        SESSIONWATCH_CONFG="x",
        SESSIONWATCH_CHAINS__MUMBAI__FINALTY="1",
    )
    text = "\n".join(found)
    assert "databse__url: not a known key; did you mean database__url?" in text
    assert "database_url: not a known key; did you mean database__url?" in text
    assert "database.url: found an unreadable file, expected UTF-8 text" in text
    assert "chains.mumbai.rpc: found (hidden), which is not JSON" in text
    assert 'chains.mumbai.managers: found "[1,", not JSON, expected a list of contract' in text
    assert "SESSIONWATCH_CONFG: not a variable" in text
    assert "did you mean SESSIONWATCH_CONFIG?" in text
    assert "did you mean SESSIONWATCH_CHAINS__MUMBAI__FINALITY?" in text
    assert "hunter2" not in text
    missing = mistakes(file, MINIMAL, CREDENTIALS_DIRECTORY="/nowhere")
    assert missing == ["/nowhere: $CREDENTIALS_DIRECTORY cannot be read: No such file or directory"]


@given(st.binary(min_size=20, max_size=20).filter(any))
def test_an_address_is_read_in_each_of_its_spellings(address: bytes) -> None:
    """Lower case, upper case and the checksum are the same address; any other case is refused."""
    right = checksum_address(address)
    for spelling in (right, right.lower(), "0x" + right[2:].upper()):
        assert parse_address(spelling) == address
    wrong = "0x" + right[2:].swapcase()
    if wrong[2:] not in {wrong[2:].lower(), wrong[2:].upper()}:
        with pytest.raises(ValueMistakeError) as caught:
            parse_address(wrong)
        assert caught.value.expected == right


SECRET = st.text("abcdefghijkmnopqrstuvwxyzABCDEFG123456789", min_size=12, max_size=30).map(
    lambda text: f"zq{text}qz"
)


@given(secret=SECRET, form=st.sampled_from(["{}", "https://{}@h/", "ftp://h/{}", "mysql://u:{}@h"]))
def test_no_value_of_a_secret_key_is_ever_printed(secret: str, form: str) -> None:
    """Whatever is wrong with rpc or url, in a file or a variable, the text does not repeat it."""
    value = form.format(secret)
    environ = {
        "SESSIONWATCH_DATABASE__URL": value,
        "SESSIONWATCH_CHAINS__MUMBAI__RPC": value,
        "SESSIONWATCH_CHAINS__AMOY__RPC": f'["{value}", 7]',
        "SESSIONWATCH_CHAINS__POLYGON__RPC": f'["{value}"',
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, environ=environ)
    assert secret not in str(caught.value)


def test_settings_show_no_secret(file: Path) -> None:
    """repr() of the settings has no URL in it, and secrets() lists what logs must hide."""
    settings = load(
        file,
        '[database]\nurl = "postgresql://me:hunter2@h/d"\n'
        '[chains.amoy]\nrpc = "https://h.example/v2/0123456789abcdef?token=fedcba9876543210"',
    )
    assert "hunter2" not in repr(settings)
    assert "h.example" not in repr(settings)
    assert {"hunter2", "0123456789abcdef", "fedcba9876543210", *settings.chains[0].rpc} <= set(
        settings.secrets()
    )
