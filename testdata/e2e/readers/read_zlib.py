"""Read a tar+gzip blob as one gzip member with nothing behind it: read_zlib.py BLOB < SUMS"""

import io
import sys
import tarfile
import zlib
from pathlib import Path

from sums import verify

(blob,) = sys.argv[1:]
gunzip = zlib.decompressobj(wbits=31)
tar = gunzip.decompress(Path(blob).read_bytes())
if not gunzip.eof or gunzip.unused_data:
    sys.exit(f"{blob}: not one whole gzip member")
with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
    verify(archive)
