"""A throw-away certificate authority and a server certificate for 127.0.0.1, made by the ``openssl`` command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    ca: Path
    """What clients trust: SSL_CERT_FILE and REQUESTS_CA_BUNDLE."""
    cert: Path
    key: Path


def make(folder: Path) -> Certificate:
    """Make all three files in ``folder``; raises RuntimeError when there is no openssl command."""
    if shutil.which("openssl") is None:
        raise RuntimeError("the bench needs the openssl command to make a certificate: install openssl")
    made = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    ca_key, request, extension = folder / "ca.key", folder / "server.csr", folder / "server.ext"
    extension.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _run("req", "-x509", *curve, "-keyout", ca_key, "-out", made.ca, "-days", "2", "-subj", "/CN=feedmill bench CA",
         "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    _run("req", *curve, "-keyout", made.key, "-out", request, "-subj", "/CN=127.0.0.1")
    _run("x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2",
         "-extfile", extension, "-out", made.cert)  # fmt: skip
    ca_key.unlink()
    return made


def _run(*args: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {args[0]} failed: {done.stderr.strip()}")
