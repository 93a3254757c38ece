"""Read a tar+gzip blob with tarfile: read_tarfile.py {r:gz|r|gz} BLOB < SUMS

tarfile stops where the archive ends, so it checks neither the length nor the
CRC-32 behind it; read_zlib.py does.
"""

import sys
import tarfile

from sums import verify

mode, blob = sys.argv[1:]
with tarfile.open(blob, mode) as archive:
    verify(archive)
