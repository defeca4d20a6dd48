"""Runs a command and buries whatever it leaves behind; run as a program, not imported.

QEMU outlives the libvirtd that started it and would be a child of init then. libvirt waits for
its end until init has taken note of it, and some machines have an init that does so once a
second. This process takes the place of init for all descendants, and ends with the last.
"""

import contextlib
import ctypes
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
