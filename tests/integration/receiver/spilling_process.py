"""A receiver of the toy venue as a process of its own, to be killed. Argument: JSON of url, redis and settings."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feedmill.receiver.service import Receiver
from feedmill.shared.health import Health
from feedmill.shared.log import get_logger
from feedmill.shared.redis.url import RedisUrl


def toys() -> Any:
    spec = importlib.util.spec_from_file_location("toys", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toys"] = module
    spec.loader.exec_module(module)
    return module


async def main() -> None:
    wanted = json.loads(sys.argv[1])
    made: Any = toys()
    venue = SimpleNamespace(url=wanted["url"], rest_url=wanted["rest_url"])
    changes = wanted["settings"] | {"spill_dir": Path(wanted["spill_dir"])}
    settings = made.toy_settings(venue, **changes)
    receiver = Receiver(
        settings, made.ToyFeed(settings.stream_url), made.ToyRest(settings.rest_url), RedisUrl.parse(wanted["redis"]),
        Health("receiver"), get_logger(),
    )  # fmt: skip
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await receiver.run(stop)


asyncio.run(main())
