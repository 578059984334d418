"""Each receiver on this machine has its own spill folder, which a new start of it finds again."""

from __future__ import annotations

from pathlib import Path

from feedmill.local.manager import ServiceManager
from feedmill.local.servers import LocalServers
from feedmill.plan import Workload


def spill_dir(data_dir: Path, load: Workload) -> str | None:
    manager = ServiceManager([load], config=[], data_dir=data_dir, servers=LocalServers(data_dir, {}))
    command = manager._command(load, data_dir / "port")
    return command[command.index("--spill-dir") + 1] if "--spill-dir" in command else None


def test_each_receiver_has_its_own(tmp_path: Path) -> None:
    loads = [
        Workload("receiver", f"btc-receiver-{shard}-{replica}", (), (namespace, "main"), (namespace, "btc"), shard)
        for namespace in ("default", "other")
        for shard in (0, 1)
        for replica in (0, 1)
    ]
    folders = [spill_dir(tmp_path, load) for load in loads]
    assert len(set(folders)) == len(loads) == 8
    assert folders == [spill_dir(tmp_path, load) for load in loads]
    assert all(Path(folder or "/").parent == tmp_path / "spill" for folder in folders)


def test_nobody_else_has_one(tmp_path: Path) -> None:
    for role in ("maintenance", "processor", "distributor"):
        assert spill_dir(tmp_path, Workload(role, f"main-{role}", (), ("default", "main"))) is None
