"""The tested set of packages with the hash of each file, for Linux on x86-64 and the Python that runs this.

    .venv/bin/python scripts/lock.py > requirements-locked.txt

Asks pip what it would install for the constraints, and installs nothing.
"""

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        wanted = ["--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[dev]"]
        subprocess.run([*command, "--report", str(report), *wanted], check=True)
        entries = json.loads(report.read_text())["install"]
    print(f"# CPython {platform.python_version()}, {platform.system()}, {platform.machine()}; made by scripts/lock.py.")
    print("# pip install --require-hashes -r requirements-locked.txt && pip install --no-deps .")
    print("# torch here is the CPU build, for which pip needs an index that has it (docs/faq.md).")
    for entry in sorted(entries, key=lambda entry: entry["metadata"]["name"].lower()):
        metadata, archive = entry["metadata"], entry["download_info"].get("archive_info", {})
        if "hashes" in archive:  # what is built from this folder has none
            print(f"{metadata['name']}=={metadata['version']} --hash=sha256:{archive['hashes']['sha256']}")


if __name__ == "__main__":
    main()
