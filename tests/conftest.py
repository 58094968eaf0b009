"""What every test runs under: no network but loopback, no keys, one thread, fixed hypothesis profile."""

from __future__ import annotations

import gc
import ipaddress
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "ANONYMIZED_TELEMETRY": "False",
    "NO_COLOR": "1",
    "TERM": "dumb",
}
os.environ.update(_ENVIRONMENT)
for name in [n for n in os.environ if n.endswith(("_API_KEY", "_API_BASE", "_BASE_URL", "_PROXY", "_proxy"))]:
    del os.environ[name]

settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

_network_allowed = False


def _refuse_outside(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: a connection to anything but this machine fails at once, whatever library makes it."""
    if event == "socket.connect" and not _network_allowed and isinstance(args[1], tuple):
        host = str(args[1][0])
        try:
            local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        except ValueError:
            local = host == "localhost"
        if not local:
            raise PermissionError(f"tests use no network, found a connection to {host!r}")


sys.addaudithook(_refuse_outside)


@pytest.fixture(autouse=True)
def _network_by_marker(request: pytest.FixtureRequest):
    """Opens the network for a test marked `network`."""
    global _network_allowed
    _network_allowed = request.node.get_closest_marker("network") is not None
    yield
    _network_allowed = False


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the files in order: by number of tests, the long ones would come last, and one worker would wait."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


_settled = 0


def pytest_runtest_setup() -> None:
    """Takes what was imported out of the garbage collector's rounds: with torch loaded, each would last a second."""
    global _settled
    if len(sys.modules) > _settled + 300:
        gc.collect()
        gc.freeze()
        _settled = len(sys.modules)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets named by VERBAL_DATA; a test that needs it is skipped where there is none."""
    folder = os.environ.get("VERBAL_DATA", "")
    if not folder:
        pytest.skip("skipped: no data")
    if not Path(folder).is_dir():
        pytest.fail(f"VERBAL_DATA={folder!r} is not a folder")
    return Path(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run, and says why."""
    for item in items:
        if item.get_closest_marker("gpu") and not Path("/dev/nvidiactl").exists():
            item.add_marker(pytest.mark.skip(reason="no GPU"))
        if item.get_closest_marker("network") and not os.environ.get("VERBAL_NETWORK"):
            item.add_marker(pytest.mark.skip(reason="no network: set VERBAL_NETWORK=1"))
