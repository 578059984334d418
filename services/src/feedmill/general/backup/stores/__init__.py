"""Places that backups are stored in: one interface, a folder, S3 and B2."""

from __future__ import annotations

import logging
from pathlib import Path

from feedmill.general.backup.stores.base import ObjectStore
from feedmill.general.backup.stores.calls import PATIENCE
from feedmill.general.backup.stores.credentials import ReadKey
from feedmill.general.backup.stores.folder import FolderStore
from feedmill.general.backup.stores.remote import RemoteStore
from feedmill.resources.backup_policy import Destination


def open_store(destination: Destination, read: ReadKey, *, patience: float = PATIENCE) -> ObjectStore:
    """The store of a destination; ``read`` gives the values of the Secret with its credentials (a folder has none).

    ``patience``: seconds for which one that is away is asked again.

    Nothing is connected yet; ``check`` does.
    """
    if destination.folder is not None:
        return FolderStore(Path(destination.folder.path))
    # These libraries are imported only where they are used, and tell headers with credentials at level DEBUG.
    for name in ("botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings and errors repeat what a server answered, which may be what it was sent; ours say what was wrong.
    logging.getLogger("b2sdk").setLevel(logging.CRITICAL)
    if destination.s3 is not None:
        from feedmill.general.backup.stores.s3 import S3Bucket

        s3 = destination.s3
        prefix = _folder(s3.prefix)
        return RemoteStore(
            S3Bucket(s3.bucket, prefix, read, region=s3.region, endpoint=s3.endpoint, path_style=s3.path_style),
            patience=patience,
        )
    from feedmill.general.backup.stores.b2 import B2Bucket

    assert destination.b2 is not None
    b2 = destination.b2
    return RemoteStore(B2Bucket(b2.bucket, _folder(b2.prefix), read, realm=b2.realm), patience=patience)


def _folder(prefix: str) -> str:
    return f"{prefix.rstrip('/')}/" if prefix else ""
