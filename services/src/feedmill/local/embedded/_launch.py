"""Runs before a supervised program: tie it to the life of its parent, drop root, exec. Standard library only.

Started as
``python -I -S _launch.py --parent PID --signal N [--userns | --uid U --gid G] [--watch FD] -- PROGRAM ARGS...``.
A launcher rather than ``preexec_fn``, because Python code between fork and exec can deadlock in a parent with threads.
"""

import contextlib
import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def enter_user_namespace() -> None:
    """Root here, ``nobody`` for the program: files stay ours, and a server that refuses root runs."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare(CLONE_NEWUSER): {os.strerror(code)}")
    for path, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"65534 {uid} 1"),
        ("/proc/self/gid_map", f"65534 {gid} 1"),
    ):
        with open(path, "w") as file:
            file.write(text)


def die_with_parent(parent: int, number: int) -> None:
    """Linux: the kernel signals us when the thread that started us ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process ended before its child was ready")


def watch_parent(watch: int, number: int) -> None:
    """Elsewhere: a small helper process waits for the end of a pipe whose other end the parent holds."""
    program = os.getpid()
    if os.fork():
        os.close(watch)
        return
    with contextlib.suppress(OSError):
        os.setsid()
    os.read(watch, 1)
    if os.getppid() == program:
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, number)
    os._exit(0)


def main(argv: list[str]) -> None:
    options: dict[str, str] = {}
    at = 0
    while argv[at] != "--":
        name = argv[at]
        if name == "--userns":
            options[name] = ""
            at += 1
        else:
            options[name] = argv[at + 1]
            at += 2
    program = argv[at + 1 :]
    parent, number = int(options["--parent"]), int(options["--signal"])
    if "--userns" in options:
        enter_user_namespace()
    elif "--uid" in options:
        os.setgroups([])
        os.setgid(int(options["--gid"]))
        os.setuid(int(options["--uid"]))
    if "--watch" in options:
        watch_parent(int(options["--watch"]), number)
    else:
        die_with_parent(parent, number)
    os.execv(program[0], program)  # noqa: S606 (the caller's own program, no shell)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"launch: {error}")
