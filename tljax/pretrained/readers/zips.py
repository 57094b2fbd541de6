"""Members of a ZIP archive: mapped where they are stored, unpacked where they are deflated.

Only the archive's directory is left to `zipfile`. Where each member lies is checked against its
own header, so that a damaged directory can't hand out another member's bytes.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tljax.pretrained.readers.mapped import Mapped
from tljax.pretrained.readers.weights import check_size, damaged, guarded

LOCAL_HEADER = struct.Struct('<4sHHHHHIIIHH')
END = b'PK\5\6'  # the last record
ZIP64 = 0xFFFF  # the number stands elsewhere
ENCRYPTED = 0x1
MOST_MEMBERS = 1_000_000


class Archive:
    """A ZIP file, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.mapped = Mapped(path)
        self.path = path
        with guarded(path, 'its directory (the end of the file, where a ZIP lists its members)'):
            with zipfile.ZipFile(path) as file:
                infos = file.infolist()
            if len(infos) > MOST_MEMBERS:
                raise ValueError(f'it has {len(infos):,} members')
            self.members = {info.filename: info for info in infos if not info.is_dir()}
            if len(self.members) < sum(not info.is_dir() for info in infos):
                raise ValueError('two members have one name')
            # `zipfile` counts nothing, so that damage could swallow members unseen.
            end = self.mapped.bytes.rfind(END)
            stated = int.from_bytes(self.mapped.view(end + 10, end + 12), 'little')
            if stated not in (len(infos), ZIP64):
                raise ValueError(f'it lists {len(infos)} of {stated} members')
            for info in infos:
                self._start(info)
        # PyTorch can be told to write zeros instead of sums.
        self._unsummed = not any(info.CRC for info in infos)
        self._sound: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def size(self, name: str) -> int:
        """Bytes of a member, unpacked."""
        return self.members[name].file_size

    def packed(self, name: str) -> bool:
        """Whether a member is compressed, so that reading it makes a copy."""
        return self.members[name].compress_type != zipfile.ZIP_STORED

    def read(self, name: str) -> memoryview:
        """The bytes of a member: a view of the mapped file, or unpacked.

        Raises:
          UserError: they are damaged.
        """
        info = self.members[name]
        with guarded(self.path, f'the member {name!r}'):
            if self.packed(name):
                check_size(info.file_size, len(self.mapped), self.path)
                return self._checked(name, memoryview(self._inflated(name, info.file_size)))
            if info.compress_size != info.file_size:
                raise ValueError('its two sizes differ')
            start = self._start(info)
            return self._checked(name, self.mapped.view(start, start + info.file_size))

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member, at most `count`, not compared with its sum."""
        info = self.members[name]
        with guarded(self.path, f'the member {name!r}'):
            if self.packed(name):
                return self._inflated(name, min(count, info.file_size))
            start = self._start(info)
            return bytes(self.mapped.view(start, start + min(count, info.file_size)))

    def _inflated(self, name: str, size: int) -> bytes:
        info = self.members[name]
        if info.compress_type != zipfile.ZIP_DEFLATED:
            raise ValueError(f'its compression (kind {info.compress_type}) is not deflate')
        start = self._start(info)
        packed = self.mapped.view(start, start + info.compress_size)
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size) if size else b''
        if len(data) != size:
            raise ValueError(f'it unpacks to {len(data):,} of {size:,} bytes')
        return data

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin, from the header before them."""
        if info.flag_bits & ENCRYPTED:
            raise damaged(self.path, f'{info.filename!r} is encrypted', 'Save it unencrypted.')
        begin = info.header_offset
        header = self.mapped.view(begin, begin + LOCAL_HEADER.size)
        magic, _, _, kind, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        begin += LOCAL_HEADER.size
        name = bytes(self.mapped.view(begin, begin + name_length))
        if magic != b'PK\3\4' or kind != info.compress_type or not same(name, info.orig_filename):
            raise ValueError('the directory and its own header disagree')
        return begin + name_length + extra_length

    def _checked(self, name: str, data: memoryview) -> memoryview:
        if name not in self._sound and not self._unsummed:
            if zlib.crc32(data) != self.members[name].CRC:
                raise ValueError('its sum (CRC-32) is not the one that was written')
            self._sound.add(name)
        return data


def same(raw: bytes, name: str) -> bool:
    """Whether a header's bytes are a member's name."""
    return any(raw == name.encode(code, 'replace') for code in ('utf-8', 'cp437'))
