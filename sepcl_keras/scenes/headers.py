"""What the structure of a sound file says, where a decoder would read less than is there, or other than is there.

libsndfile reads the first of several MP3 or Ogg streams written one after the other, and of an MP3 without a header of
its length only as much as it guessed from the first frame, unless it takes the file for endless. tensorflow-io takes
few layouts, and others for what they are not.
"""

import contextlib
import mmap

# Kilobits a second of MPEG-1's Layer III and of MPEG-2's, by the index in a frame's header.
BITRATES = {3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)}
BITRATES |= dict.fromkeys((0, 2), (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
# Of the encodings, the sample type by which tensorflow-io 0.37.1 reads them. 32-bit integers come as bytes of floats.
GRAPH_TYPES = {"PCM_16": "int16", "PCM_24": "int32", "PCM_32": "float32", "FLOAT": "float32"}
GRAPH_TYPES |= {"VORBIS": "float32", "MPEG_LAYER_III": "float32"}


@contextlib.contextmanager
def mapped(path):
    """The bytes of a file that is not empty, read as they are needed."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _mp3_frame(data, at):
    """Bytes, samples and kind (version, rate, mono) of the Layer III frame at a place, or None where there is none."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, bitrate, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    samples = 1152 if version == 3 else 576
    length = samples // 8 * 1000 * BITRATES[version][bitrate] // RATES[version][rate] + (head[2] >> 1 & 1)
    return length, samples, (version, rate, head[3] >> 6 == 3)


def mp3_samples(data):
    """Samples in all frames of an MP3, how many the header of its length, left out there, tells of, or 0, and whether
    it has no such header anywhere, and frames of one kind."""
    at = samples = told = headers = 0
    kinds = set()
    while at < len(data):
        frame = _mp3_frame(data, at)
        if frame:
            silent = any(data.find(mark, at, at + 44) > 0 for mark in (b"Xing", b"Info", b"VBRI"))
            samples, headers = samples + (0 if silent else frame[1]), headers + silent
            kinds.add(frame[2])
            mark = max(data.find(name, at, at + 44) for name in (b"Xing", b"Info")) if not samples else -1
            if mark > 0 and int.from_bytes(data[mark + 4 : mark + 8], "big") & 1:  # the number of frames comes first
                told = int.from_bytes(data[mark + 8 : mark + 12], "big") * frame[1]
            at += frame[0]
        elif data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            size = data[at + 6 : at + 10]
            at += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
        else:  # what is between frames: on to the next that another one follows
            at = data.find(b"\xff", at + 1)
            while at >= 0 and not ((frame := _mp3_frame(data, at)) and _mp3_frame(data, at + frame[0])):
                at = data.find(b"\xff", at + 1)
            if at < 0:
                break
    return samples, told, not headers and len(kinds) == 1


def is_chained(data, container):
    """Whether another Ogg stream or FLAC begins after the first."""
    if container == "FLAC":  # its mark, and the head of the block that must follow
        return any(data.find(b"fLaC" + head, 4) > 0 for head in (b"\0\0\0\x22", b"\x80\0\0\x22"))
    at, begun = 0, False
    while container == "OGG" and data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        first = data[at + 5] & 2
        if first and begun:
            return True
        begun |= not first
        segments = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(segments) + sum(segments)
    return False


def wav_chunks(data):
    """Name, start and size of each chunk of a wav or an aiff file, as its headers say."""
    at, chunks, order = 12, [], {b"RIFF": "little", b"FORM": "big"}.get(data[:4])
    while order and at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        chunks.append((data[at : at + 4], at + 8, size))
        at += 8 + size + size % 2
    return chunks


def graph_type(data, container, encoding):
    """The sample type by which tensorflow-io reads this file right, or None: for layouts that were tried."""
    if container in ("WAV", "WAVEX"):
        chunks = [chunk for chunk in wav_chunks(data) if chunk[0] != b"fact"][:2]
        names, whole = [chunk[0] for chunk in chunks], sum(chunks[-1][1:]) <= len(data) if chunks else False
        plain = names == [b"fmt ", b"data"] and whole and chunks[1][2] > 0 and not chunks[1][2] % 2
    elif container == "FLAC":  # with the number of its samples in the first block
        plain = data[:4] == b"fLaC" and (data[21] & 15 or any(data[22:26])) and encoding in ("PCM_16", "PCM_24")
    else:
        plain = (container, encoding) in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("MPEG", "MPEG_LAYER_III"))
    return GRAPH_TYPES.get(encoding) if plain else None
