"""The file that is written beside the one it will replace, and what killed saves have left of such.

Its name tells who writes it: `.run.pt.<machine>-<process>-<random>`. One whose process has
ended is in nobody's way and is removed by the next save of the same file; of a process on
another machine, which cannot be asked, after a day.
"""

import os
import re
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["beside", "swept"]

DAY = 86_400.0  # seconds
MACHINE = f"{zlib.crc32(os.uname().nodename.encode() if hasattr(os, 'uname') else b''):08x}"
WORKING: set[str] = set()  # the files that this process is writing


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A new file to write; when the body ends well it is on the disk in the place of `path`, else it is gone."""
    swept(path)
    temporary = path.parent / f".{path.name}.{MACHINE}-{os.getpid()}-{secrets.token_hex(8)}"
    WORKING.add(temporary.name)
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE(os.stat(temporary).st_mode)  # what a new file gets here
        os.chmod(temporary, 0o600)  # nobody reads what is not yet known to be open to him
        yield temporary
        _take_over(path, temporary, mode)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        WORKING.discard(temporary.name)
    _write_folder(path.parent)


def _take_over(path: Path, temporary: Path, mode: int) -> None:
    """Permissions, and where that is allowed the owner, of the file that is replaced."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.chmod(temporary, mode)
        return
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.chown(temporary, old.st_uid, old.st_gid)
    os.chmod(temporary, stat.S_IMODE(old.st_mode))


def swept(path: Path) -> None:
    """Removes what saves of `path` have left behind that were killed."""
    form = re.compile(re.escape(f".{path.name}.") + r"(?:([0-9a-f]{8})-(\d+)-)?[0-9a-f]{16}")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            match = form.fullmatch(entry.name)
            if match and entry.name not in WORKING and _given_up(entry, *match.groups()):
                with suppress(OSError):
                    os.unlink(entry.path)


def _given_up(entry: os.DirEntry[str], machine: str | None, process: str | None) -> bool:
    if machine == MACHINE and process is not None and hasattr(os, "getuid"):
        return not _runs(int(process))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY


def _runs(process: int) -> bool:
    if process == os.getpid():  # an earlier process that had the same number: what this one writes is in WORKING
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, OSError):  # not to be asked, and so perhaps at work
        pass
    return True


def _write_folder(folder: Path) -> None:
    """Has the new name of a file on the disk, too, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
