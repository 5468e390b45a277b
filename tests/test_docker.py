"""The container files, as far as reading shows; `scripts/container-check` builds and runs them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from myllm.settings import Settings

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.mark.parametrize("service", sorted(COMPOSE["services"]))
def test_the_port_is_published_to_this_machine_alone(service: str) -> None:
    assert COMPOSE["services"][service]["ports"] == ["127.0.0.1:8000:8000"]


def test_the_gpu_is_reserved_and_the_engine_compiled_for_it() -> None:
    service = COMPOSE["services"]["myllm"]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert service["build"]["args"]["BACKEND"] == "cuda"
    assert "profiles" not in service


def test_without_a_gpu_there_is_a_profile() -> None:
    service = COMPOSE["services"]["myllm-cpu"]
    assert service["profiles"] == ["cpu"]
    assert service["build"]["args"]["BACKEND"] == "cpu"
    assert "deploy" not in service


def test_every_setting_in_the_image_exists() -> None:
    named = set(re.findall(r"MYLLM_([A-Z_]+)=", DOCKERFILE))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_the_server_does_not_run_as_root() -> None:
    last = DOCKERFILE.rindex("\nFROM ")
    assert "\nUSER myllm\n" in DOCKERFILE[last:]


def test_the_files_copied_for_the_engine_suffice_to_compile_it(tmp_path: Path) -> None:
    copies = re.findall(r"^COPY (?!--)(.+)", DOCKERFILE.partition(" engine build")[0], re.MULTILINE)
    for line in copies:
        *sources, target = line.split()
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, dirs_exist_ok=True)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    assert not (tmp_path / "myllm" / "api").exists()
    # The build stops at the missing compiler, after it has imported all of its own modules.
    done = subprocess.run(
        [sys.executable, "-m", "myllm", "engine", "build", "--portable"],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "MYLLM_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "no C++ compiler" in done.stderr) == (1, True), done.stderr
