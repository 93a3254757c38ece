"""Compare a tar archive with the "sha256  path" lines on standard input."""

import hashlib
import sys
import tarfile


def verify(archive: tarfile.TarFile) -> None:
    """Exit with status 1 unless archive holds exactly the files listed, each intact."""
    lines = (line.rstrip("\n").split("  ", 1) for line in sys.stdin)
    want = {path: digest for digest, path in lines}
    got: dict[str, str] = {}
    for member in archive:
        if member.isdir():
            continue
        if not member.isreg() or member.name in got:
            sys.exit(f"{member.name}: not a regular file, or there twice")
        file = archive.extractfile(member)
        assert file is not None
        got[member.name] = hashlib.sha256(file.read()).hexdigest()
    if got != want or not want:
        sys.exit(f"want {want}\ngot  {got}")
