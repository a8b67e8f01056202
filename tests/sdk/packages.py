"""The vendor's SDK and a bundler, from the npm registry, in the cache folder of the local chain."""

from __future__ import annotations

from pathlib import Path

from indexer.devnet import npm
from indexer.devnet.tools import default_cache_folder

PACKAGES = {"@biconomy/account": "4.6.3", "@pimlico/alto": "0.0.20"}


def vendor_packages(say: npm.Progress = lambda _text: None) -> Path:
    """Return the folder with node_modules; the first call on a machine downloads 375 MB."""
    cache = default_cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    return npm.installed(
        cache,
        "vendor-sdk",
        PACKAGES,
        say=say,
        announcement="downloading the vendor's SDK and a bundler from npm (375 MB unpacked)",
    )
