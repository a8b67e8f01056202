"""What the local chain is made of: Anvil, and the vendor's contracts built from their packages.

Everything comes from the npm registry at exact versions (npm.py) and is kept in a cache folder
outside the repository, under names that are hashes of what went in. The first call downloads about
70 MB and compiles (under a minute); later calls only read files.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from indexer.devnet import npm
from indexer.devnet.npm import Progress
from indexer.errors import FatalError

VENDOR_PACKAGE: Final = ("@biconomy-devx/account-contracts-v2", "1.0.1")
"""Carries the sources of tag v2-deployments. Fetched without its dependencies: none is needed."""

PACKAGES: Final[Mapping[str, str]] = {
    "@account-abstraction/contracts": "0.6.0",
    "@openzeppelin/contracts": "4.9.3",
    "solc": "0.8.17",
}
ANVIL_VERSION: Final = "1.7.1"
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "amd64": "amd64",
    "aarch64": "arm64",
    "arm64": "arm64",
}

CONTRACTS_FOLDER: Final = Path(__file__).parent / "contracts"
_SMART_ACCOUNT: Final = "contracts/smart-account/"
_MODULES: Final = _SMART_ACCOUNT + "modules/"

# Proxy's code is byte-identical to production's only with these settings and under this very path:
# account addresses depend on it. The two modules do not compile otherwise ("stack too deep").
_PRODUCTION: Final[Mapping[str, Any]] = {
    "optimizer": {"enabled": True, "runs": 800},
    "viaIR": True,
    "metadata": {"useLiteralContent": True},
}
_PLAIN: Final[Mapping[str, Any]] = {"optimizer": {"enabled": True, "runs": 800}}

_COMPILE_SCRIPT: Final = (
    "const solc = require('solc'); let text = '';"
    "process.stdin.on('data', d => { text += d; });"
    "process.stdin.on('end', () => process.stdout.write(solc.compile(text)));"
)
_IMPORT: Final = re.compile(r"^\s*import\b[^;]*?[\"']([^\"']+)[\"']", re.MULTILINE)
_COMPILE_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract: what creates it, and what then stands at its address."""

    creation_code: bytes
    runtime_code: bytes


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The node's binary and every contract, by contract name."""

    anvil: Path
    contracts: Mapping[str, Artifact]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One run of the compiler. `wanted` maps a source path to the contracts taken from it."""

    name: str
    settings: Mapping[str, Any]
    wanted: Mapping[str, tuple[str, ...]]


_JOBS: Final = (
    _Job(
        "account factory and session modules",
        _PRODUCTION,
        {
            _SMART_ACCOUNT + "Proxy.sol": ("Proxy",),
            _SMART_ACCOUNT + "factory/SmartAccountFactory.sol": ("SmartAccountFactory",),
            _MODULES + "BatchedSessionRouterModule.sol": ("BatchedSessionRouter",),
            _MODULES + "SessionValidationModules/ERC20SessionValidationModule.sol": (
                "ERC20SessionValidationModule",
            ),
        },
    ),
    _Job(
        "smart account and modules",
        _PLAIN,
        {
            _SMART_ACCOUNT + "SmartAccount.sol": ("SmartAccount",),
            _SMART_ACCOUNT + "deployer/Deployer.sol": ("Deployer",),
            _SMART_ACCOUNT + "libs/MultiSend.sol": ("MultiSend",),
            _MODULES + "EcdsaOwnershipRegistryModule.sol": ("EcdsaOwnershipRegistryModule",),
            _MODULES + "MultichainECDSAValidator.sol": ("MultichainECDSAValidator",),
            _MODULES + "SessionKeyManagerModule.sol": ("SessionKeyManager",),
        },
    ),
    _Job(
        "local contracts",
        _PLAIN,
        {
            "devnet/Bundlers.sol": ("BundlerWrapper", "OpaqueForwarder"),
            "devnet/EventManager.sol": ("EventManager",),
            "devnet/OpenPaymaster.sol": ("OpenPaymaster",),
            "devnet/OpenSessionModule.sol": ("OpenSessionModule",),
            "devnet/PuppetModule.sol": ("PuppetModule",),
            "devnet/RootCallers.sol": (
                "Airdrop",
                "CustomFactory",
                "EvilImplementation",
                "LogEmitter",
                "RootHelper",
                "RootLibrary",
            ),
            "devnet/SeedSessionModule.sol": ("SeedSessionModule",),
            "devnet/SeedToken.sol": ("SeedToken",),
        },
    ),
)


def default_cache_folder() -> Path:
    """Return where tools are kept when nobody says otherwise: ~/.cache/sessionwatch."""
    return Path.home() / ".cache" / "sessionwatch"


def prepare(cache: Path | None = None, *, progress: Progress | None = None) -> Toolchain:
    """Return the tools, downloading and compiling what the cache folder does not hold yet.

    Blocks, for up to a minute on the first call. Two processes may call it at once: one works, the
    other waits. `progress` gets one short line per step. Raises FatalError where Node.js or a
    package cannot be had on this machine, RetryableError where the registry did not answer.
    """
    say = progress or (lambda _text: None)
    folder = cache or default_cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FatalError(
            f"the cache folder {folder} cannot be made: {error.strerror}",
            remedy="give a folder that this user may write",
        ) from error
    packages = _packages(folder, say)
    contracts: dict[str, Artifact] = {}
    for name, (creation, runtime) in _compiled(folder, packages, say).items():
        contracts[name] = Artifact(bytes.fromhex(creation), bytes.fromhex(runtime))
    entry_point = packages / "node_modules/@account-abstraction/contracts/artifacts/EntryPoint.json"
    published = json.loads(entry_point.read_bytes())
    contracts["EntryPoint"] = Artifact(bytes.fromhex(published["bytecode"].removeprefix("0x")), b"")
    anvil = packages / "node_modules" / _anvil_package() / "bin" / "anvil"
    return Toolchain(anvil=anvil, contracts=contracts)


def _anvil_package() -> str:
    system = platform.system().lower()
    architecture = _ARCHITECTURES.get(platform.machine().lower())
    if system not in {"linux", "darwin"} or architecture is None:
        raise FatalError(
            f"there is no Anvil for {platform.system()} on {platform.machine()}",
            remedy="use Linux or macOS on x86_64 or arm64",
        )
    return f"@foundry-rs/anvil-{system}-{architecture}"


def _packages(folder: Path, say: Progress) -> Path:
    """Return the folder that holds node_modules and the vendor's sources."""
    return npm.installed(
        folder,
        "packages",
        {**PACKAGES, _anvil_package(): ANVIL_VERSION},
        sources=(VENDOR_PACKAGE,),
        say=say,
        announcement="downloading Anvil and the contracts' sources from npm (about 70 MB)",
    )


def _compiled(folder: Path, packages: Path, say: Progress) -> dict[str, list[str]]:
    """Return {contract: [creation code, run-time code]} in hex, of all jobs."""
    inputs = {job: _standard_json(job, packages) for job in _JOBS}
    files = {
        job: folder / f"contracts-{npm.hashed(text, PACKAGES['solc'])}.json"
        for job, text in inputs.items()
    }
    if missing := [job for job in _JOBS if not files[job].exists()]:
        with npm.locked(folder / "contracts.lock", say):
            missing = [job for job in missing if not files[job].exists()]
            _compile({job: inputs[job] for job in missing}, files, packages, say)
    return {
        name: codes for job in _JOBS for name, codes in json.loads(files[job].read_bytes()).items()
    }


def _standard_json(job: _Job, packages: Path) -> str:
    """Return the compiler's input: the wanted sources and all they import."""
    sources: dict[str, dict[str, str]] = {}
    waiting = list(job.wanted)
    while waiting:
        path = waiting.pop()
        if path in sources:
            continue
        text = _source_file(path, packages).read_text(encoding="utf-8")
        sources[path] = {"content": text}
        waiting += [_resolve(path, found) for found in _IMPORT.findall(text)]
    selection = {path: dict.fromkeys(names, _OUTPUTS) for path, names in job.wanted.items()}
    settings = {**job.settings, "outputSelection": selection}
    document = {"language": "Solidity", "sources": sources, "settings": settings}
    return json.dumps(document, sort_keys=True)


_OUTPUTS: Final = ["evm.bytecode.object", "evm.deployedBytecode.object"]


def _source_file(path: str, packages: Path) -> Path:
    if path.startswith("devnet/"):
        return CONTRACTS_FOLDER / path.removeprefix("devnet/")
    if path.startswith("contracts/"):
        return packages / "vendor" / "package" / path
    return packages / "node_modules" / path


def _resolve(importer: str, path: str) -> str:
    if not path.startswith("."):
        return path
    parts = importer.split("/")[:-1]
    for part in path.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _compile(
    inputs: Mapping[_Job, str], files: Mapping[_Job, Path], packages: Path, say: Progress
) -> None:
    """Run the compilers side by side; each result appears under its name whole or not at all."""
    node, _ = npm.node_commands()
    running: list[tuple[_Job, subprocess.Popen[bytes], Path]] = []
    try:
        for job, text in inputs.items():
            say(f"compiling {job.name}")
            given = files[job].with_suffix(".input")
            given.write_text(text, encoding="utf-8")
            output = files[job].with_suffix(".output")
            with given.open("rb") as stdin, output.open("wb") as stdout:
                process = subprocess.Popen(
                    [*node, "-e", _COMPILE_SCRIPT],
                    cwd=packages,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.DEVNULL,
                )
            running.append((job, process, output))
        for job, process, output in running:
            code = process.wait(_COMPILE_SECONDS)
            codes = _read_output(job, code, output)
            part = files[job].with_suffix(".part")
            part.write_text(json.dumps(codes))
            part.rename(files[job])
            say(f"compiled {job.name}")
    finally:
        for job, process, output in running:
            if process.poll() is None:
                process.kill()
                process.wait()
            output.unlink(missing_ok=True)
            files[job].with_suffix(".input").unlink(missing_ok=True)


def _read_output(job: _Job, code: int, output: Path) -> dict[str, list[str]]:
    try:
        answer = json.loads(output.read_bytes())
    except ValueError as error:
        raise FatalError(
            f"the Solidity compiler ended with code {code} while compiling {job.name}",
            remedy="check free memory (about 1 GB is needed) and try again",
        ) from error
    mistakes = [e["formattedMessage"] for e in answer.get("errors", []) if e["severity"] == "error"]
    if mistakes:
        raise FatalError(f"{job.name} does not compile: {mistakes[0]}")
    return {
        name: [
            answer["contracts"][path][name]["evm"][kind]["object"]
            for kind in ("bytecode", "deployedBytecode")
        ]
        for path, names in job.wanted.items()
        for name in names
    }
