"""What the tests of data/ share: small archives, split ones too, and a server that does what servers do."""

import hashlib
import http.server
import struct
import threading
import zipfile

import numpy as np

FULL = 0xFFFFFFFF
NOISE = np.random.default_rng(1)
SET = {
    "top/audio/1.wav": NOISE.bytes(60_000), "top/audio/2.wav": NOISE.bytes(90_000),
    "top/meta/esc50.csv": b"filename\n", "top/LICENSE": b"CC",
}  # fmt: skip
INSIDE = {name.removeprefix("top/"): content for name, content in SET.items()}


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def cut(path, length, wide=False):
    """The zip at `path` as a split one: files of `length` bytes, with places by file.

    wide: all numbers in zip64 fields.
    """
    whole, stream, listing = path.read_bytes(), b"PK\7\x08", b""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
    for info, end in zip(infos, ends):
        disk, offset = divmod(len(stream), length)
        stream += whole[info.header_offset : end]
        numbers, fields = (info.compress_size, info.file_size, disk, offset), b"\xfe\xca\x02\0ab"
        if wide:
            fields += struct.pack("<2H3QL", 1, 28, info.file_size, info.compress_size, offset, disk)
            numbers = (FULL, FULL, 0xFFFF, FULL)
        packed, size, disk, offset = numbers
        name = info.filename.encode()
        listing += b"PK\1\2" + struct.pack("<6H", 0x031E, 45, 0, 8, 0, 33)
        listing += struct.pack("<3L5H", info.CRC, packed, size, len(name), len(fields), 3, disk, 0)
        listing += struct.pack("<2L", 0o100644 << 16, offset) + name + fields + b"hey"
    disk, offset = divmod(len(stream), length)
    count, size = len(infos), len(listing)
    stream += listing
    last = (len(stream) + (76 if wide else 0)) // length
    if wide:
        at = divmod(len(stream), length)
        stream += b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, last, disk, count, count, size, offset)
        stream += b"PK\6\7" + struct.pack("<LQL", *at, last + 1)
        disk, count, size, offset = 0xFFFF, 0xFFFF, FULL, FULL
    stream += b"PK\5\6" + struct.pack("<4H2LH", last, disk, count, count, size, offset, 0)
    parts = [stream[at : at + length] for at in range(0, (last + 1) * length, length)]
    parts[-1] = stream[last * length :]
    paths = [path.with_suffix(f".z{number:02d}") for number in range(1, last + 1)] + [path]
    for part, content in zip(paths, parts):
        part.write_bytes(content)
    return paths


def known(content, kind="sha256"):
    return len(content), f"{kind}:{hashlib.new(kind, content).hexdigest()}"


def left(folder):
    """What lies in `folder`, hidden or not, besides data sets."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` (name → bytes); what is in `tricks` happens first, one to a request; `asked`: what was asked."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.tricks, self.asked, self.release = {}, [], [], threading.Event()
        self.tag = '"one"'
        self.url = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_):  # a client that left
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path.strip("/"))
        server.asked.append((self.headers["Range"], self.headers["If-Range"]))
        trick = server.tricks.pop(0) if server.tricks else None
        if isinstance(trick, int) or content is None:
            self.send_error(trick or 404)
            return
        first, length = 0, len(content)
        asked, since = self.headers["Range"], self.headers["If-Range"]
        if asked and trick != "no ranges" and since in (None, server.tag):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= length:
                self.send_error(416)
                return
        self.send_response(206 if first else 200)
        if first:
            shown = first + (trick == "wrong place")
            self.send_header("Content-Range", f"bytes {shown}-{length - 1}/{length}")
        if server.tag:
            self.send_header("ETag", server.tag)
        said = length - first + {"says more": 50, "says less": -50}.get(trick, 0)
        if trick not in ("no length", "no length, more"):
            self.send_header("Content-Length", str(said))
        self.end_headers()
        middle = first + (length - first) // 2
        self.wfile.write(content[first:middle])
        if trick == "stalls":
            self.wfile.flush()
            server.release.wait(30)
        if trick not in ("stalls", "breaks"):
            self.wfile.write(content[middle:] + b"more" * (trick == "no length, more"))
