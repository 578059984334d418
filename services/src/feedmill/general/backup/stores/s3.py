"""S3 and what speaks like it, by botocore. Everything here blocks."""

from __future__ import annotations

import base64
import calendar
import hashlib
import ssl
import threading
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.session import Session

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
from feedmill.shared.clock import SECOND

CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
_MISSING = ("NoSuchKey", "NoSuchUpload", "404", "NotFound", "InvalidRange", "416")
"""The last two: reading goes on behind the end of what is there now."""
_FULL = ("QuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "InsufficientCapacity")
_PASSES = ("RequestTimeout", "BadDigest", "SlowDown", "Throttling", "OperationAborted", "InternalError")
_ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "TemporaryRedirect")


_MAKING = threading.Lock()
"""A session makes clients for one thread at a time."""


@cache
def _session() -> Session:
    """One for all: it reads and keeps the description of the API, which takes a while."""
    return Session()


class S3Bucket:
    """A bucket. See Bucket."""

    def __init__(
        self, bucket: str, prefix: str, read: ReadKey, *, region: str, endpoint: str | None, path_style: bool
    ) -> None:
        self.prefix = prefix
        self.where = f"s3://{bucket}/{prefix}"
        self._bucket = bucket
        self._credentials = Credentials(read, "accessKeyId", "secretAccessKey")
        self._region, self._endpoint, self._path_style = region, endpoint, path_style
        self._made: tuple[int, Any] | None = None
        """(version of the credentials, client)."""

    @property
    def _client(self) -> Any:
        with _MAKING:
            version = self._credentials.version
            if self._made is None or self._made[0] != version:
                identity, secret = self._credentials.values()
                client = _session().create_client(
                    "s3",
                    region_name=self._region,
                    endpoint_url=self._endpoint,
                    aws_access_key_id=identity,
                    aws_secret_access_key=secret,
                    config=Config(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=ANSWER_SECONDS,
                        # One try: RemoteStore repeats, for both APIs by the same rule.
                        retries={"total_max_attempts": 1},
                        s3={"addressing_style": "path" if self._path_style else "auto"},
                        # Not every server knows the newer checksums; all check Content-MD5, which is sent below.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
                self._made = version, client
            return self._made[1]

    @property
    def credentials(self) -> int:
        return self._credentials.version

    def renew(self, used: int) -> bool:
        return self._credentials.renew(used)

    def translated(self, error: Exception) -> StoreError | None:
        if isinstance(error, ClientError):
            return self._answered(error)
        if isinstance(error, SSLError) and not _cut(error):
            return StoreRefused(f"{self.where}: TLS fails: check the endpoint's certificate and the time: {error}")
        if isinstance(error, (SSLError, ConnectionError, HTTPClientError, IncompleteReadError)):
            return StoreAway(f"{self.where}: does not answer: {error}")
        if isinstance(error, BotoCoreError):
            return StoreRefused(f"{self.where}: {error}")
        return None

    def _answered(self, error: ClientError) -> StoreError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        answer = error.response.get("ResponseMetadata", {})
        status = int(answer.get("HTTPStatusCode", 0))
        said = f"{self.where}: the server answers {status} {code} to {error.operation_name}"
        if code in _FULL or status == 507:
            return StoreFull(f"{said}: make room, or keep fewer backups (spec.backup.retention)")
        if code in _PASSES or status in (408, 429) or status >= 500:
            after = str(answer.get("HTTPHeaders", {}).get("retry-after", ""))
            return StoreAway(said, float(after) if after.isdecimal() else None)
        if code == "NoSuchBucket":
            return StoreRefused(f"{said}: make the bucket, or check its name (spec.backup.destination.s3)")
        if code in _MISSING:
            return ObjectMissing(f"{said}: there is no such object")
        if code in _ELSEWHERE:
            return StoreRefused(f"{said}: check region and endpoint (spec.backup.destination.s3)")
        if status == 413:
            return StoreRefused(f"{said}: raise what a proxy before it takes in one request (parts have 5 MiB or more)")
        if code == "RequestTimeTooSkewed":
            return StoreRefused(f"{said}: this machine's clock is wrong: set it")
        return StoreRefused(f"{said}: check the credentials and what they may do in this bucket")

    def check(self) -> None:
        client = self._client
        client.list_objects_v2(Bucket=self._bucket, Prefix=self.prefix, MaxKeys=1)
        # That it may write is seen without writing anything: an upload begun and taken back.
        key = f"{self.prefix}check"
        self.abandon(key, self.begin(key))

    def small(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentMD5=_md5(content))

    def begin(self, key: str) -> str:
        return str(self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"])

    def part(self, key: str, upload: str, number: int, content: bytes) -> str:
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=key, UploadId=upload, PartNumber=number, Body=content, ContentMD5=_md5(content)
        )
        return str(answer["ETag"])

    def finish(self, key: str, upload: str, tags: list[str]) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )

    def abandon(self, key: str, upload: str) -> None:
        self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload)

    def open(self, key: str, start: int, size_bytes: int | None) -> Reading:
        wanted = {"Range": f"bytes={start}-"} if start else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
        body = answer["Body"]
        if start and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
            body.close()
            raise StoreRefused(f"{self.where}: the server, or a proxy before it, does not give a part of an object")
        size = size_bytes if size_bytes is not None else int(answer["ContentLength"])
        return Reading(str(answer["ETag"]), size, lambda: bytes(body.read(PIECE)), body.close)

    def page(self, prefix: str, after: str | None) -> tuple[list[Found], str | None]:
        more = {"ContinuationToken": after} if after else {}
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
        found = [
            Found(str(one["Key"]), int(one["Size"]), _ns(one["LastModified"])) for one in _many(answer, "Contents")
        ]
        return found, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    def unfinished(self, prefix: str, after: str | None) -> tuple[list[Unfinished], str | None]:
        more: dict[str, str] = {}
        if after:
            more["KeyMarker"], _, more["UploadIdMarker"] = after.partition("\n")
        answer = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=prefix, **more)
        found = [
            Unfinished(str(one["Key"]), str(one["UploadId"]), _ns(one["Initiated"])) for one in _many(answer, "Uploads")
        ]
        truncated = answer.get("IsTruncated")
        return found, f"{answer['NextKeyMarker']}\n{answer['NextUploadIdMarker']}" if truncated else None

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)


def _cut(error: SSLError) -> bool:
    """Whether the connection ended within TLS, rather than that one of both did not want the other."""
    seen: BaseException | None = error.kwargs["error"]
    while seen is not None:
        if isinstance(seen, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return True
        inner = seen.args[0] if seen.args else None
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
    return False


def _many(answer: Any, field: str) -> Iterable[Any]:
    found: Iterable[Any] = answer.get(field, ())
    return found


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _ns(at: datetime) -> int:
    return calendar.timegm(at.utctimetuple()) * SECOND + at.microsecond * 1000
