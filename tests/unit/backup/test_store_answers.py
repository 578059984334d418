"""What errors of the clients of S3 and B2 mean: another try, or what to mend; and no word of the server's in them."""

from __future__ import annotations

import io
import ssl
from typing import Any

import pytest
from b2sdk.v3 import exception as b2_errors
from botocore.exceptions import ClientError, SSLError
from pydantic import SecretStr
from urllib3.exceptions import SSLError as UrllibSSLError

from feedmill.general.backup.stores.b2 import B2Bucket
from feedmill.general.backup.stores.base import ObjectMissing, StoreAway, StoreError, StoreFull, StoreRefused
from feedmill.general.backup.stores.s3 import S3Bucket
from feedmill.shared.log import register_secret

SAID = "pl4nted-s3cret that was sent"


def secret(key: str) -> SecretStr:
    return SecretStr(f"value of {key}")


@pytest.fixture
def s3() -> S3Bucket:
    return S3Bucket("bucket", "home/", secret, region="us-east-1", endpoint="http://127.0.0.1:9", path_style=True)


@pytest.fixture
def b2() -> B2Bucket:
    return B2Bucket("bucket", "home/", secret, realm="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", StoreAway),
        (502, "502", StoreAway),
        (429, "TooManyRequests", StoreAway),
        (408, "408", StoreAway),  # A proxy that a slow upload was too slow for.
        (400, "RequestTimeout", StoreAway),
        (507, "507", StoreFull),
        (403, "QuotaExceeded", StoreFull),
        (404, "NoSuchKey", ObjectMissing),
        (416, "InvalidRange", ObjectMissing),  # It was replaced by a shorter one.
        (404, "NoSuchBucket", StoreRefused),
        (403, "SignatureDoesNotMatch", StoreRefused),
        (403, "RequestTimeTooSkewed", StoreRefused),
        (301, "PermanentRedirect", StoreRefused),
        (413, "413", StoreRefused),
    ],
)
def test_answers_of_s3(s3: S3Bucket, status: int, code: str, kind: type[StoreError]) -> None:
    answer: Any = {"Error": {"Code": code, "Message": SAID}, "ResponseMetadata": {"HTTPStatusCode": status}}
    told = s3.translated(ClientError(answer, "GetObject"))
    assert type(told) is kind
    assert str(told).startswith(f"s3://bucket/home/: the server answers {status} {code} to GetObject")
    assert SAID not in str(told)


def test_a_proxy_that_takes_no_part_is_not_the_credentials_fault(s3: S3Bucket) -> None:
    answer: Any = {"Error": {"Code": "413"}, "ResponseMetadata": {"HTTPStatusCode": 413}}
    told = str(s3.translated(ClientError(answer, "UploadPart")))
    assert "raise what a proxy before it takes in one request" in told
    assert "credentials" not in told


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), StoreAway),
        (ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"), StoreAway),
        (ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate"), StoreRefused),
        (ssl.SSLError(1, "wrong version number"), StoreRefused),
    ],
)
def test_a_connection_that_ends_within_tls_is_tried_again(
    s3: S3Bucket, inner: ssl.SSLError, kind: type[StoreError]
) -> None:
    assert type(s3.translated(SSLError(endpoint_url="https://s3", error=UrllibSSLError(inner)))) is kind
    assert type(s3.translated(SSLError(endpoint_url="https://s3", error=inner))) is kind


def test_a_server_that_knows_no_ranges_is_told_and_its_answer_not_taken_for_the_rest(s3: S3Bucket) -> None:
    body = io.BytesIO(b"from the beginning")

    class Client:
        def get_object(self, **asked: str) -> dict[str, Any]:
            assert asked["Range"] == "bytes=5-"
            return {"Body": body, "ContentLength": 18, "ETag": "x"}

    s3._made = (0, Client())
    with pytest.raises(StoreRefused, match="does not give a part of an object"):
        s3.open("home/a", 5, 18)
    assert body.closed


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (b2_errors.ServiceError(f"503 service_unavailable {SAID}"), StoreAway, "ServiceError (503 service_una"),
        (b2_errors.ServiceError(SAID), StoreAway, "ServiceError"),
        (b2_errors.TooManyRequests(retry_after_seconds="7"), StoreAway, "TooManyRequests"),
        (b2_errors.B2ConnectionError(SAID), StoreAway, "B2ConnectionError"),
        (b2_errors.PartSha1Mismatch("id"), StoreAway, "PartSha1Mismatch"),
        (b2_errors.StorageCapExceeded(), StoreFull, "StorageCapExceeded"),
        (b2_errors.FileNotPresent(file_id_or_name=SAID), ObjectMissing, "there is no such object"),
        (b2_errors.Unauthorized(SAID, "unauthorized"), StoreRefused, "Unauthorized (unauthorized): check the appli"),
        (b2_errors.InvalidAuthToken(SAID, "bad_auth_token"), StoreRefused, "InvalidAuthToken (bad_auth_token): check"),
        (b2_errors.Unauthorized(SAID, SAID), StoreRefused, "Unauthorized: check the application key"),
        (b2_errors.UnknownError(f"418 {SAID}"), StoreRefused, "UnknownError"),
    ],
)
def test_errors_of_b2(b2: B2Bucket, error: Exception, kind: type[StoreError], said: str) -> None:
    told = b2.translated(error)
    assert type(told) is kind
    assert said in str(told)
    assert SAID not in str(told)


def test_a_bad_request_is_told_in_the_servers_words_without_secrets(b2: B2Bucket) -> None:
    register_secret("pl4nted-s3cret")
    said = f"partNumber 0 {{'Authorization': '4_005token'}} {SAID}"
    told = str(b2.translated(b2_errors.BadRequest(said, "bad_request")))
    assert "partNumber 0" in told
    assert "that was sent" in told
    assert "pl4nted-s3cret" not in told
    assert "4_005token" not in told
