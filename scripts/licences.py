"""The licences of all packages that latentry takes to run, with its extras, as a table in Markdown.

    .venv/bin/python scripts/licences.py > docs/licences.md

Of what is installed here, as each package says of itself.
"""

import importlib.metadata
import sys

from packaging.requirements import Requirement

EXTRAS = ("export", "serve")
HEADER = """# Licences

The licence of latentry is MIT. These are the packages that it takes to run, with the extras `export` and `serve`,
and those that they take, on Linux with a processor alone; `.venv/bin/python scripts/licences.py` lists them again. All
may be used by software under other licences; the MPL asks that changes to the package itself stay open.

| package | licence |
|---|---|
"""


def needed(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """The packages that are taken by one, and by those, itself included."""
    found, todo = set(), [(name, extras)]
    while todo:
        name, extras = entry = todo.pop()
        if entry in found:
            continue
        found.add(entry)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append((requirement.name.lower().replace("_", "-"), tuple(requirement.extras)))
    return {name for name, _ in found} - {"latentry"}


def licence(name: str) -> str:
    """What a package says its licence is: an SPDX expression, or a name of it."""
    metadata = importlib.metadata.metadata(name)
    classifiers = metadata.get_all("Classifier") or []
    named = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License :: OSI Approved ::")]
    text = metadata.get("License-Expression") or ", ".join(named) or metadata.get("License", "").partition("\n")[0]
    return text.strip() or "none named"


def main() -> None:
    sys.stdout.write(HEADER)
    for name in sorted(needed("latentry", EXTRAS)):
        print(f"| {name} | {licence(name)} |")


if __name__ == "__main__":
    main()
