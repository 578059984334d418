"""Backblaze B2, by b2sdk. Everything here blocks.

Of the SDK this is the session, which renews a token that has expired and hands out upload addresses; large files are
put together in RemoteStore, as for S3, because the SDK's own way wants a file it can read twice.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from typing import Any

import requests
from b2sdk.v3 import B2Http, B2HttpApiConfig, B2Session, InMemoryAccountInfo
from b2sdk.v3 import exception as b2
from urllib3.exceptions import HTTPError

from feedmill.general.backup.stores.base import (
    PIECE,
    Found,
    ObjectMissing,
    StoreAway,
    StoreError,
    StoreFull,
    StoreRefused,
)
from feedmill.general.backup.stores.credentials import Credentials, ReadKey
from feedmill.general.backup.stores.remote import Reading, Unfinished
from feedmill.shared.clock import MS
from feedmill.shared.log import redact

ANSWER_SECONDS = 60
PAGE = 1000
NEEDED = ("listFiles", "readFiles", "writeFiles")
"""What a backup needs of the application key; prune needs deleteFiles too, which a careful owner may withhold."""
_CODE = re.compile(r"(?:[0-9]{3} )?[a-z_]{1,60}")
_WORDS = 200
"""Characters of what a server says, at most."""
_KIND = "application/octet-stream"


class _Http(B2Http):  # type: ignore[misc]
    """One try, and no wait of minutes for an answer: RemoteStore repeats, for both APIs by the same rule."""

    CONNECTION_TIMEOUT = 10
    TIMEOUT = ANSWER_SECONDS

    def request(self, method: Any, url: str, headers: Any, data: Any = None, **options: Any) -> Any:
        options |= {"try_count": 1, "_timeout": ANSWER_SECONDS}
        return super().request(method, url, headers, data, **options)


class _Session(B2Session):  # type: ignore[misc]
    B2HTTP_CLASS = staticmethod(_Http)


class B2Bucket:
    """A bucket. See Bucket."""

    def __init__(self, bucket: str, prefix: str, read: ReadKey, *, realm: str = "production") -> None:
        self.prefix = prefix
        self.where = f"b2://{bucket}/{prefix}"
        self._bucket = bucket
        self._realm = realm
        self._credentials = Credentials(read, "keyId", "applicationKey")
        self._lock = threading.Lock()
        self._made: tuple[int, Any, str] | None = None
        """(version of the credentials, session, id of the bucket)."""

    def _open_session(self) -> tuple[Any, str]:
        """(session, id of the bucket)."""
        with self._lock:
            version = self._credentials.version
            if self._made is None or self._made[0] != version:
                identity, secret = self._credentials.values()
                session = _Session(InMemoryAccountInfo(), api_config=B2HttpApiConfig(user_agent_append="feedmill"))
                session.authorize_account(self._realm, identity, secret)
                self._made = version, session, self._find(session)
            return self._made[1:]

    def _find(self, session: Any) -> str:
        """Id of the bucket. A key that is for some buckets alone names them, and need not be allowed to list any."""
        for one in session.account_info.get_allowed().get("buckets") or ():
            if one["name"] == self._bucket:
                return str(one["id"])
        found = session.list_buckets(session.account_info.get_account_id(), bucket_name=self._bucket)["buckets"]
        if not found:
            raise StoreRefused(
                f"{self.where}: there is no such bucket that the application key may see: make it, or check its name "
                "(spec.backup.destination.b2)"
            )
        return str(found[0]["bucketId"])

    @property
    def _session(self) -> Any:
        return self._open_session()[0]

    @property
    def _id(self) -> str:
        return self._open_session()[1]

    @property
    def credentials(self) -> int:
        return self._credentials.version

    def renew(self, used: int) -> bool:
        return self._credentials.renew(used)

    def translated(self, error: Exception) -> StoreError | None:
        if isinstance(error, (requests.RequestException, HTTPError)):
            return StoreAway(f"{self.where}: the connection was cut: {type(error).__name__}")
        if not isinstance(error, b2.B2Error):
            return None
        if isinstance(error, b2.CapExceeded):
            return StoreFull(f"{self.where}: {_told(error)}: raise the account's caps, or keep fewer backups")
        if isinstance(error, (b2.FileNotPresent, b2.UnsatisfiableRange)):
            return ObjectMissing(f"{self.where}: there is no such object")
        if isinstance(error, b2.ClockSkew):
            return StoreRefused(f"{self.where}: {error}: set this machine's clock")
        # Before the next one: the SDK calls these worth another try, which it has made by now, with a new token.
        if isinstance(error, (b2.Unauthorized, b2.AccessDenied, b2.NotAllowedByAppKeyError, b2.RestrictedBucket)):
            return StoreRefused(f"{self.where}: {_told(error)}: check the application key and what it may do")
        if error.should_retry_http() or error.should_retry_upload() or isinstance(error, b2.PartSha1Mismatch):
            return StoreAway(f"{self.where}: does not answer as it should: {_told(error)}", error.retry_after_seconds)
        return StoreRefused(f"{self.where}: {_told(error)}")

    def check(self) -> None:
        session, _ = self._open_session()
        allowed = session.account_info.get_allowed()
        missing = [what for what in NEEDED if what not in allowed["capabilities"]]
        if missing:
            raise StoreRefused(
                f"{self.where}: the application key lacks {', '.join(missing)}: make one with {', '.join(NEEDED)}, and "
                "deleteFiles where old backups are deleted"
            )
        limit = allowed.get("namePrefix") or ""
        if not self.prefix.startswith(limit):
            raise StoreRefused(
                f"{self.where}: the application key is for names that begin with {limit!r}: put that before the prefix"
            )
        self.page(self.prefix, None)

    def small(self, key: str, content: bytes) -> None:
        stream = io.BytesIO(content)
        self._session.upload_file(self._id, key, len(content), _KIND, _sha1(content), {}, stream)

    def begin(self, key: str) -> str:
        return str(self._session.start_large_file(self._id, key, _KIND, {})["fileId"])

    def part(self, key: str, upload: str, number: int, content: bytes) -> str:
        tag = _sha1(content)
        self._session.upload_part(upload, number, len(content), tag, io.BytesIO(content))
        return tag

    def finish(self, key: str, upload: str, tags: list[str]) -> None:
        try:
            self._session.finish_large_file(upload, tags)
        except b2.BadRequest as error:
            raise ObjectMissing(f"{self.where}: the upload of {key} cannot be finished: {_told(error)}") from error

    def abandon(self, key: str, upload: str) -> None:
        try:
            self._session.cancel_large_file(upload)
        except b2.BadRequest as error:  # Finished or taken back meanwhile, by a try whose answer was lost for one.
            raise ObjectMissing(f"{self.where}: there is no upload of {key} any more: {_told(error)}") from error

    def open(self, key: str, start: int, size_bytes: int | None) -> Reading:
        session = self._session
        url = session.get_download_url_by_name(self._bucket, key)
        wanted = (start, size_bytes - 1) if start and size_bytes else None
        with session.download_file_from_url(url, range_=wanted) as answer:
            # The SDK's context closes nothing: the answer is ours from here on.
            size = size_bytes if size_bytes is not None else int(answer.headers["Content-Length"])
            pieces: Iterator[bytes] = answer.iter_content(PIECE)
            return Reading(str(answer.headers["X-Bz-File-Id"]), size, lambda: next(pieces, b""), answer.close)

    def page(self, prefix: str, after: str | None) -> tuple[list[Found], str | None]:
        answer = self._session.list_file_names(self._id, after or prefix, PAGE, prefix)
        found = [
            Found(str(one["fileName"]), int(one["contentLength"]), int(one["uploadTimestamp"]) * MS)
            for one in answer["files"]
            if one["action"] == "upload"
        ]
        return found, answer["nextFileName"]

    def unfinished(self, prefix: str, after: str | None) -> tuple[list[Unfinished], str | None]:
        answer = self._session.list_unfinished_large_files(self._id, after, 100, prefix)
        found = [
            Unfinished(str(one["fileName"]), str(one["fileId"]), int(one["uploadTimestamp"]) * MS)
            for one in answer["files"]
        ]
        return found, answer["nextFileId"]

    def delete(self, key: str) -> None:
        """All versions: B2 keeps those that were replaced, and hides instead of deleting when asked by name."""
        name: str | None = key
        version: str | None = None
        while name == key:
            answer = self._session.list_file_versions(self._id, name, version, PAGE, key)
            for one in answer["files"]:
                if one["fileName"] == key and one["action"] in ("upload", "hide"):
                    self._session.delete_file_version(one["fileId"], key)
            name, version = answer["nextFileName"], answer["nextFileId"]


def _told(error: b2.B2Error) -> str:
    """What kind it is, with status and code; the server's own words, which may repeat what it was sent, only where
    nothing else says what was wrong."""
    code = str(getattr(error, "code", None) or "")
    if isinstance(error, b2.ServiceError):
        code = " ".join(str(error).split(" ")[:2])  # "503 service_unavailable and what it says".
    if isinstance(error, b2.BadRequest):
        return f"{type(error).__name__} ({redact(str(error.message))[:_WORDS]})"
    return f"{type(error).__name__} ({code})" if _CODE.fullmatch(code) else type(error).__name__


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
