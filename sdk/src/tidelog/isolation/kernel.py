"""What the kernel can do to keep a process by itself. Linux; elsewhere there are only the limits of `resource`.

Run as a file, it tries and prints what works here (see `kernel_here`). It imports nothing of ours.
"""

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
_CAPABILITIES = 0x20080522
_LAST_CAPABILITY = 63
PROBE_S = 20.0


@dataclass(frozen=True)
class Kernel:
    """What works on this machine. `user`: it needs a user namespace for it. `reason`: why something does not."""

    user: bool = False
    processes: bool = False
    """A namespace of processes: nothing that a call has started outlives it, and a call sees no other process."""
    network: bool = False
    """A namespace without a network."""
    reason: str = "this system is not Linux"


def libc() -> "ctypes.CDLL":
    import ctypes  # 1 MB, which a worker without isolated tools does not need

    return ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Raises OSError."""
    if libc().unshare(flags) != 0:
        raise _error("unshare")


def prctl(option: int, value: int) -> bool:
    """Whether it worked."""
    return sys.platform == "linux" and bool(libc().prctl(option, value, 0, 0, 0) == 0)


def die_with_parent(parent: int) -> None:
    """The process is killed when its parent dies. If that has happened already, it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def enter(kernel: Kernel, *, network: bool) -> None:
    """Put this process, which has one thread, into namespaces of its own, as far as the kernel can. Raises OSError."""
    if not kernel.processes:
        return
    flags = CLONE_NEWNS | (CLONE_NEWUSER if kernel.user else 0) | (0 if network or not kernel.network else CLONE_NEWNET)
    user, group = os.getuid(), os.getgid()
    unshare(flags)
    if kernel.user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")


def split_processes() -> None:
    """The next processes that this one forks are in a namespace of their own. The first of them is its init. Raises OSError."""
    unshare(CLONE_NEWPID | CLONE_NEWNS)


def see_own_processes_only() -> bool:
    """`/proc` shows the processes of the namespace. False: the system does not let us (in some containers)."""
    library = libc()
    library.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    return bool(library.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None) == 0)


def drop_rights() -> None:
    """No capabilities, for good: neither those of the namespace nor any by a program that is started."""
    if sys.platform != "linux":
        return
    for capability in range(_LAST_CAPABILITY + 1):
        prctl(PR_CAPBSET_DROP, capability)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    import ctypes

    header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    libc().capset(header, (ctypes.c_uint32 * 6)())


def hide_memory() -> None:
    """No other process of this account may read the memory and the environment of this one."""
    prctl(PR_SET_DUMPABLE, 0)


@functools.cache
def kernel_here() -> Kernel:
    """What works here. Asked once in a process that ends: it takes some 50 ms."""
    if sys.platform != "linux":
        return Kernel()
    try:
        told = subprocess.run([sys.executable, "-I", "-S", __file__], capture_output=True, text=True, timeout=PROBE_S, check=True)
        return Kernel(**json.loads(told.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        return Kernel(reason=f"it could not be tried: {type(error).__name__}")


def _probe() -> Kernel:
    """The best that works, each tried in a process of its own."""
    reason = ""
    for network in (True, False):
        for user in (True, False):
            tried = Kernel(user, True, network, reason)
            fault = _fault(tried)
            if fault is None:
                return tried
            reason = reason or fault
    return Kernel(reason=reason)


def _fault(kernel: Kernel) -> str | None:
    """What is in the way; None: nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fault = ""
        try:
            enter(kernel, network=not kernel.network)
            split_processes()
            inner = os.fork()
            if inner == 0:
                os._exit(0)
            os.waitpid(inner, 0)
        except OSError as error:
            fault = f"{error.filename or 'unshare'}: {error.strerror}"
        os.write(writer, fault.encode()[:500])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        fault = told.read()
    os.waitpid(child, 0)
    return fault or None


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _error(what: str) -> OSError:
    import ctypes

    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    os.write(1, json.dumps(asdict(_probe())).encode())
