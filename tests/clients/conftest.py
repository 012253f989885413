"""What the tests share: servers that end with the test, and certificates."""

import shutil
from pathlib import Path

import pytest

import program
from certificates import Authority


def pytest_configure():
    if not Path(program.HOOKBOT).is_file():
        pytest.exit(f"{program.HOOKBOT} is missing; run: cargo build --release", returncode=2)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    """Kills what a test has started and not ended."""
    started = []
    begin = program.Program.__init__

    def remember(self, *arguments, **options):
        begin(self, *arguments, **options)
        started.append(self)

    monkeypatch.setattr(program.Program, "__init__", remember)
    yield
    for child in started:
        child.kill()


@pytest.fixture
def server():
    return program.Server()


@pytest.fixture
def needs_node():
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (program.HERE / "node_modules").is_dir():
        pytest.skip("npm ci was not run in tests/clients")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority that nobody else trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))
