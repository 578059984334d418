"""PostgreSQL's restore_command: asks the process that restores for a file of the log. Standard library only.

Started as ``python -I -S _fetch_wal.py SOCKET FILE PATH``. Exit code 1: there is no such file, the log ends here. 200:
it could not be had, which is no end: PostgreSQL gives up then.
"""

import socket
import struct
import sys

MISSING, FAILED = 1, 200


def main(place: str, file: str, path: str) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(place)
        client.sendall(file.encode() + b"\n")
        with client.makefile("rb") as answer:
            kind = answer.read(1)
            if kind == b"-":
                return MISSING
            if kind != b"+":
                return FAILED
            (size,) = struct.unpack("!Q", answer.read(8))
            with open(path, "wb") as target:
                left = size
                while left:
                    piece = answer.read(min(left, 1 << 20))
                    if not piece:
                        return FAILED
                    target.write(piece)
                    left -= len(piece)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except (OSError, struct.error) as error:
        print(f"fetch: {error}", file=sys.stderr)
        sys.exit(FAILED)
