"""Downloads one file by HTTP: goes on where an earlier download stopped, tries again, believes no server's word."""

import http.client
import re
import time
import urllib.error
import urllib.request

from sepcl_keras.core.checks import BadInput
from sepcl_keras.core.files import progress, read_json, write_json, writing

BLOCK = 1 << 18  # bytes asked for at a time
TIMEOUT = 60.0  # seconds without a byte
TRIES = 5  # in a row that brought less than `GROWTH`
GROWTH = 1 << 20  # bytes
ROUNDS = 100  # tries in all
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP's answers that may be other ones soon
HEADERS = {"User-Agent": "sepcl-keras data/fetch.py", "Accept-Encoding": "identity"}
pause = time.sleep


class _Broken(Exception):
    """A try that failed in a way the next one may not; `wait` is how many seconds the server asks to wait."""

    def __init__(self, reason, wait=None):
        super().__init__(reason)
        self.wait = wait


def _open(url, headers, timeout):
    """The server's answer, 200 or 206; else `_Broken` or `BadInput`."""
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (416, *PASSING):
                wait = error.headers.get("Retry-After", "")
                raise _Broken(f"the server answers {error.code}", int(wait) if wait.isdecimal() else None) from None
            raise BadInput(f"{url}: the server answers {error.code} ({error.reason}); expected the file.") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(getattr(error, "reason", None) or error or type(error).__name__)) from None
    except ValueError as error:
        raise BadInput(f"{url}: expected an address on the web ({error}).") from None


def _blocks(answer, length):
    """Yields what the server sends, up to `length` bytes where that is known; `_Broken` where the line breaks."""
    left = length
    while left != 0:
        try:
            block = answer.read1(BLOCK if left is None else min(BLOCK, left))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from None
        if not block:
            return
        left = None if left is None else left - len(block)
        yield block


def _validator(answer):
    """What tells two versions of a file apart, in the order that If-Range may be given them: RFC 9110, 13.1.5."""
    tag = answer.headers.get("ETag") or ""
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified")


def _receive(url, partial, about, size, timeout):
    """One try: from where `partial` ends, if the server still has what it is of, else from the beginning."""
    have = partial.stat().st_size if partial.is_file() and about.is_file() else 0
    known = read_json(about, dict) if have else {}
    if have and size is not None and have == size:
        return
    headers, validator = dict(HEADERS), known.get("validator")
    if known.get("url") != url or (size is not None and have > size):
        have = 0
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    try:
        answer = _open(url, headers, timeout)
    except _Broken as error:
        if "416" in str(error):
            partial.unlink(missing_ok=True)  # the file there is shorter than what came
        raise
    with answer:
        whole = size
        if answer.status == 206:
            place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            # RFC 9110, 15.3.7: where If-Range was a date, the answer need not repeat it.
            same = _validator(answer) in (validator, None)
            if not have or not place or int(place[1]) != have or not same:
                partial.unlink(missing_ok=True)
                raise _Broken("the file there has changed; beginning anew")
            whole = int(place[2])
        elif answer.status == 200:
            have = 0
            with writing(partial):
                partial.unlink(missing_ok=True)
            write_json(about, {"url": url, "validator": _validator(answer)})
            whole = size if answer.length is None else answer.length
        else:
            raise BadInput(f"{url}: the server answers {answer.status}; expected the file.")
        if size is not None and whole != size:
            raise BadInput(f"{url}: {whole:,} bytes long; expected {size:,}.")
        bar = progress(None, partial.stem, "B", total=whole, initial=have, unit_scale=True)
        with bar, writing(partial), open(partial, "ab") as file:
            for block in _blocks(answer, None if answer.length is None else whole - have):
                have += len(block)
                if whole is not None and have > whole:
                    raise BadInput(f"{url}: more than the {whole:,} bytes that were expected.")
                file.write(block)
                bar.update(len(block))
        if whole is not None and have < whole:
            raise _Broken(f"the line broke after {have:,} of {whole:,} bytes")


def download(url, path, size=None, timeout=None):
    """Downloads `url` to `path`, in a folder that is there.

    What has come lies in `path` with `.partial`, beside a record of what it is part of, and stays there when this is
    stopped, the disk is full or the server gives up; the next call goes on from there. It asks for the rest on the
    condition that the file is the same (If-Range with a strong ETag or a date), and begins anew if it is not, or the
    server has no parts to give.

    size: bytes that are expected, if known; a server that announces or sends another number is `BadInput`, and so is
    one that does not have the file, or breaks off `TRIES` times in a row. timeout: seconds without a byte.
    """
    partial, about = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.partial.json")
    failed = 0
    for _ in range(ROUNDS):
        before = partial.stat().st_size if partial.is_file() else 0
        try:
            _receive(url, partial, about, size, timeout or TIMEOUT)
        except _Broken as error:
            reason, grown = error, (partial.stat().st_size if partial.is_file() else 0) - before
            failed = 0 if grown >= GROWTH else failed + 1
            if failed == TRIES:
                break
            print(f"{path.name}: {error}; trying again.", flush=True)
            pause(min(120, 2**failed if error.wait is None else error.wait))
        else:
            with writing(path):
                partial.replace(path)
                about.unlink(missing_ok=True)
            return
    raise BadInput(f"{url}: {reason}; expected a server that sends it whole; what came is kept for the next run.")
