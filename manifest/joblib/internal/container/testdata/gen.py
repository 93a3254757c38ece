"""Writes the fixtures beside this file.

Made with Python 3.11 (liblzma 5.4, zlib 1.2.13) and python-lz4 4.4. The lz4
files are as joblib writes them: blocks that depend on each other.
"""

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path

import lz4.frame

HERE = Path(__file__).parent


def payload(n):
    """The same bytes as payload in container_test.go."""
    out, i = bytearray(), 0
    while len(out) < n:
        out += b"%d," % (i * i % 9973)
        i += 1
    return bytes(out[:n])


def lz4_file(data):
    """As joblib writes it."""
    out = io.BytesIO()
    with lz4.frame.LZ4FrameFile(out, mode="wb") as f:
        f.write(data)
    return out.getvalue()


SMALL = payload(1500)
LARGE = payload(150_000)

write = {
    "small.zlib": zlib.compress(SMALL, 3),
    "small.gz": gzip.compress(SMALL, 3, mtime=0),
    "small.bz2": bz2.compress(SMALL, 3),
    "small.lzma": lzma.compress(SMALL, lzma.FORMAT_ALONE, preset=0),
    "small.xz": lzma.compress(SMALL, preset=0),
    "small.lz4": lz4_file(SMALL),
    "large.zlib": zlib.compress(LARGE, 9),
    "large.gz": gzip.compress(LARGE, 9, mtime=0),
    "large.bz2": bz2.compress(LARGE, 1),  # two blocks
    "large.lzma": lzma.compress(LARGE, lzma.FORMAT_ALONE, preset=3),
    "large.xz": lzma.compress(LARGE, preset=6),
    "large.lz4": lz4_file(LARGE),
    "none.xz": lzma.compress(SMALL, check=lzma.CHECK_NONE, preset=0),
    "crc32.xz": lzma.compress(SMALL, check=lzma.CHECK_CRC32, preset=0),
    "sha256.xz": lzma.compress(SMALL, check=lzma.CHECK_SHA256, preset=0),
    "checked.lz4": lz4.frame.compress(
        LARGE, block_linked=False, content_checksum=True, block_checksum=True, store_size=True
    ),
    "empty.zlib": zlib.compress(b""),
    "empty.gz": gzip.compress(b"", mtime=0),
    "empty.bz2": bz2.compress(b""),
    "empty.lzma": lzma.compress(b"", lzma.FORMAT_ALONE, preset=0),
    "empty.xz": lzma.compress(b"", preset=0),
    "empty.lz4": lz4_file(b""),
}

delta = [{"id": lzma.FILTER_DELTA, "dist": 4}, {"id": lzma.FILTER_LZMA2, "preset": 0}]
write["delta.xz"] = lzma.compress(SMALL, filters=delta)

preset = zlib.compressobj(zdict=b"0,1,4,9,16,25,36,49,64,")
write["preset.zlib"] = preset.compress(SMALL) + preset.flush()

for name, data in write.items():
    (HERE / name).write_bytes(data)
