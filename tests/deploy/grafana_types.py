"""Dashboards against Grafana's own types: @grafana/schema and the TypeScript compiler, from npm.

Each dashboard becomes the literal of a typed constant, so that a misspelt key, a missing one and a
wrong value are errors of the compiler. Options of panels may be left out: Grafana fills them in.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from indexer.devnet import npm
from indexer.devnet.tools import default_cache_folder

TYPESCRIPT = "5.9.3"
OLDEST, NEWEST = "10.4.19", "13.2.3"
"""Versions of Grafana (and of its schema) between which the dashboards must be right."""


def prepare(progress: Callable[[str], None] = print) -> None:
    """Download what is needed, outside of any test's time limit (55 MB unpacked)."""
    for version in (OLDEST, NEWEST):
        _packages(version, progress)


def _packages(version: str, say: npm.Progress = lambda _text: None) -> Path:
    cache = default_cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    return npm.installed(
        cache,
        "grafana-schema",
        {"@grafana/schema": version, "typescript": TYPESCRIPT},
        say=say,
        announcement=f"downloading the types of Grafana {version} from npm (28 MB unpacked)",
    )


_TYPES = Path(__file__).parent / "grafana_types.ts"
_COMPILER_OPTIONS = {
    "strict": True,
    "noEmit": True,
    "skipLibCheck": True,
    "lib": ["es2022"],
    "module": "es2022",
    "moduleResolution": "bundler",
    "types": [],
    "pretty": False,
}


def complaints(
    dashboards: Mapping[str, dict[str, Any]], version: str, folder: Path
) -> dict[str, list[str]]:
    """Return the compiler's lines about each of these dashboards, by the names given to them.

    An empty list: it fits that version's types. `folder` is an empty one to work in.
    """
    modules = _packages(version) / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    (folder / "types.ts").write_text(_TYPES.read_text(encoding="utf-8"), encoding="utf-8")
    for name, dashboard in dashboards.items():
        literal = json.dumps(dashboard, indent=1)
        constant = f"export const it: Provisioned = {literal};"
        text = f'import type {{ Provisioned }} from "./types";\n{constant}\n'
        (folder / f"{name}.ts").write_text(text, encoding="utf-8")
    (schema,) = (modules / "@grafana/schema/dist").glob("**/raw/dashboard/x/*types.gen.d.ts")
    options = _COMPILER_OPTIONS | {"paths": {"grafana-dashboard": [str(schema)]}}
    project = {"compilerOptions": options, "include": ["*.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(project), encoding="utf-8")
    node, _ = npm.node_commands()
    command = [*node, str(modules / "typescript/bin/tsc"), "--project", str(folder)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    said: dict[str, list[str]] = {name: [] for name in dashboards}
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(" "):  # goes on with the line before
            continue
        name = line.split(".ts(", 1)[0]
        assert name in said, line
        said[name].append(line)
    return said
