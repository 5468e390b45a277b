"""What the container files promise, as far as it can be read; `scripts/container-check` runs it."""

from __future__ import annotations

import re
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
