"""Backblaze B2 over HTTP: b2sdk's own simulator of the service behind a server on 127.0.0.1.

The client under test is b2sdk itself with ``realm=http://127.0.0.1:PORT``: authorisation, upload addresses, headers and
status codes all go over the wire, and a :class:`Fault` may meet any request.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from b2sdk.v3 import RawSimulator
from b2sdk.v3 import exception as b2
from faults_http import Fault, Faults

BUCKET = "feedmill-test"
_UPLOAD, _DOWNLOAD = "https://upload.example.com", RawSimulator.DOWNLOAD_URL
_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (b2.InvalidAuthToken, 401, "expired_auth_token"),
    (b2.Unauthorized, 401, "unauthorized"),
    (b2.NonExistentBucket, 400, "bad_bucket_id"),
    (b2.FileNotPresent, 404, "not_found"),
    (b2.PartSha1Mismatch, 400, "part_sha1_mismatch"),
    (b2.StorageCapExceeded, 403, "storage_cap_exceeded"),
    (b2.ServiceError, 503, "service_unavailable"),
    (b2.BadRequest, 400, "bad_request"),
)


class B2Server:
    """Serves until :meth:`stop`. ``realm`` is what a client is given; the key is a master key."""

    def __init__(self) -> None:
        self.simulator = RawSimulator()
        self.key_id, self.application_key = self.simulator.create_account()
        self.faults = Faults()
        self.lock = threading.RLock()
        token = self.simulator.authorize_account("", self.key_id, self.application_key)["authorizationToken"]
        self.token = token
        self.bucket_id: str = self.simulator.create_bucket(
            RawSimulator.API_URL, token, self.key_id, BUCKET, "allPrivate"
        )["bucketId"]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"owner": self}))
        self._server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def make_key(
        self, capabilities: list[str], prefix: str | None = None, *, of_bucket: bool = False
    ) -> tuple[str, str]:
        """(id, key) of an application key. One of the bucket alone can write nothing in the simulator."""
        made = self.simulator.create_key(
            RawSimulator.API_URL,
            self.token,
            self.key_id,
            capabilities,
            "test",
            None,
            [self.bucket_id] if of_bucket else None,
            prefix,
        )
        return made["applicationKeyId"], made["applicationKey"]

    def expire_tokens(self) -> None:
        """All that were handed out to clients: the next request of each is answered with 401."""
        with self.lock:
            for token in set(self.simulator.auth_token_to_key) - {self.token}:
                self.simulator.expire_auth_token(token)

    def versions(self) -> list[tuple[str, str]]:
        """(name, action) of all that is in the bucket, unfinished files too."""
        with self.lock:
            files = self.simulator.list_file_versions(
                RawSimulator.API_URL, self.token, self.bucket_id, None, None, 1000
            )["files"]
            return [(one["fileName"], one["action"]) for one in files]


class _Handler(BaseHTTPRequestHandler):
    owner: B2Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        fault = self.owner.faults.meet(f"POST {self.path}")
        if fault is not None and fault.hold is not None:
            fault.hold.wait()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._refused(fault):
            return
        if self.path.startswith("/upload/"):
            self._answer(self._upload, body, fault)
        else:
            self._answer(self._call, body, fault)

    def do_GET(self) -> None:
        fault = self.owner.faults.meet(f"GET {self.path}")
        if self._refused(fault):
            return
        with self.owner.lock:
            if not self._token_is_good():
                return
            try:
                content, headers = self._download()
            except Exception as error:
                self._fail(error)
                return
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut = None if fault is None else fault.cut_after
        self.wfile.write(content[:cut])
        if cut is not None:
            self._hang_up()

    def _token_is_good(self) -> bool:
        token = self.headers.get("Authorization")
        if token in self.owner.simulator.auth_token_to_key and token not in self.owner.simulator.expired_auth_tokens:
            return True
        self._send(401, {"status": 401, "code": "expired_auth_token", "message": "expired"})
        return False

    def _refused(self, fault: Fault | None) -> bool:
        if fault is None or not fault.status:
            return False
        document = {"status": fault.status, "code": fault.code, "message": "a fault of the test"}
        self._send(fault.status, document, fault.headers)
        return True

    def _answer(self, work: Any, body: bytes, fault: Fault | None) -> None:
        try:
            with self.owner.lock:
                document = work(body)
        except Exception as error:
            self._fail(error)
            return
        if fault is not None and fault.unanswered:
            self._hang_up()
            return
        text = json.dumps(document, default=str)
        self._send(200, json.loads(text.replace(_UPLOAD, f"{self.owner.realm}/upload")))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _fail(self, error: Exception) -> None:
        for kind, status, code in _STATUS:
            if isinstance(error, kind):
                self._send(status, {"status": status, "code": code, "message": str(error)})
                return
        self._send(400, {"status": 400, "code": "bad_request", "message": f"the simulator: {error!r}"})

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _call(self, body: bytes) -> Any:
        simulator, name = self.owner.simulator, urlsplit(self.path).path.rsplit("/", 1)[1]
        if name == "b2_authorize_account":
            pair = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            try:
                document = simulator.authorize_account("", *pair.split(":", 1))
            except b2.InvalidAuthToken as error:
                raise b2.Unauthorized(str(error), "unauthorized") from None
            storage = document["apiInfo"]["storageApi"]
            storage["apiUrl"] = storage["downloadUrl"] = self.owner.realm
            return document
        fields = {_snake(key): value for key, value in json.loads(body).items()}
        if "name_prefix" in fields:
            fields["prefix"] = fields.pop("name_prefix")
        if name == "b2_start_large_file":
            # Its own clock begins with 1970.
            fields["custom_upload_timestamp"] = time.time_ns() // 1_000_000
        if name == "b2_finish_large_file":
            self._still_unfinished(fields["file_id"])
        method = getattr(simulator, name.removeprefix("b2_"))
        # The client sends fields that the simulator does not know, such as the kinds of bucket it wants listed.
        known = {key: value for key, value in fields.items() if key in inspect.signature(method).parameters}
        return method(RawSimulator.API_URL, self.headers["Authorization"], **known)

    def _still_unfinished(self, file_id: str) -> None:
        """As the service answers to a second finish; the simulator does it again."""
        bucket = self.owner.simulator.bucket_id_to_bucket[self.owner.bucket_id]
        if file_id not in bucket.file_id_to_file or bucket.file_id_to_file[file_id].action != "start":
            raise b2.BadRequest(f"No active upload for: {file_id}", "bad_request")

    def _upload(self, body: bytes) -> Any:
        simulator, headers = self.owner.simulator, self.headers
        address = _UPLOAD + self.path.removeprefix("/upload")
        if headers.get("X-Bz-Part-Number"):
            return simulator.upload_part(
                address, headers["Authorization"], int(headers["X-Bz-Part-Number"]), len(body),
                headers["X-Bz-Content-Sha1"], io.BytesIO(body),
            )  # fmt: skip
        return simulator.upload_file(
            address, address, unquote(headers["X-Bz-File-Name"]), len(body), headers["Content-Type"],
            headers["X-Bz-Content-Sha1"], {}, io.BytesIO(body), custom_upload_timestamp=time.time_ns() // 1_000_000,
        )  # fmt: skip

    def _download(self) -> tuple[bytes, dict[str, str]]:
        url = _DOWNLOAD + urlsplit(self.path).path
        with self.owner.simulator.download_file_from_url(self.headers.get("Authorization"), url) as answer:
            content = bytes(answer.data_bytes)
            file_id = str(answer.headers["x-bz-file-id"])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"X-Bz-File-Id": file_id}
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content = content[first : last + 1]
        return content, headers | {"Content-Length": str(len(content))}


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)
