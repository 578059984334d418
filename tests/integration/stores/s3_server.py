"""S3 over HTTP: moto's server on 127.0.0.1, with faults of the test before it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

# Before moto is imported: parts of a few kilobytes, so that an upload of many parts is quick.
os.environ["S3_UPLOAD_PART_MIN_SIZE"] = "256"

from botocore.config import Config
from botocore.session import Session
from faults_http import Faults
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "feedmill-test"
_SESSION = Session()


class S3Server:
    """Serves until :meth:`stop`."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.faults = Faults()
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.client = _SESSION.create_client(
            "s3", region_name="us-east-1", endpoint_url=self.endpoint, aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        self.client.create_bucket(Bucket=BUCKET)
        self.faults.asked.clear()

    def stop(self) -> None:
        self.faults.clear()
        found = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        for one in found:
            self.client.delete_object(Bucket=BUCKET, Key=one["Key"])
        self.client.delete_bucket(Bucket=BUCKET)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def versions(self) -> list[tuple[str, str]]:
        """(name, action) of all that is in the bucket, unfinished uploads too."""
        finished = self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        begun = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [(one["Key"], "upload") for one in finished] + [(one["Key"], "start") for one in begun]

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
        fault = self.faults.meet(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{query}")
        if fault is None:
            return self._application(environ, start)
        if fault.hold is not None:
            fault.hold.wait()
        if fault.status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{fault.code}</Code><Message>a fault of the test</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), *fault.headers.items()]
            start(f"{fault.status} Fault", headers)
            return [body]
        if fault.unanswered:
            list(self._application(environ, lambda *_: None))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("a fault of the test")
        answer = self._application(environ, start)
        if fault.cut_after is None:
            return answer
        return [b"".join(answer)[: fault.cut_after]]
