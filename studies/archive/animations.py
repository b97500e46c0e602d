"""Multi-frame images as moving pictures, and videos as pictures and MP4."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import IO

import av
import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.uid import UID, MPEGTransferSyntaxes

from studies.archive.errors import NotRenderable
from studies.archive.frames import Frames
from studies.archive.rendering import FORMATS, Look, annotated, picture, placed

# HEVC isn't: few browsers have a decoder for it.
PLAYED = {"h264"}
MOST_ANIMATED = 1000
LARGEST_ANIMATION = 400_000_000
USUAL_RATE = 10.0
# Constant rate factors of H.264: quality 100 is nearly lossless, 1 barely watchable.
BEST_FACTOR, WORST_FACTOR = 14, 40
# The same bytes each time, whatever processor: a film's ETag is a strong one.
ENCODING = {"preset": "veryfast", "x264-params": "cpu-independent=1"}
THREADS = 2


def is_video(syntax: str) -> bool:
    """Say whether the pixels are one video stream, not frames of their own."""
    return UID(syntax) in MPEGTransferSyntaxes


def frames_per_second(header: Dataset) -> float:
    """Give how fast the frames are to be shown (PS3.3 C.7.6.5)."""
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = header.get(keyword)
        if rate and 0 < float(rate) <= 240:
            return float(rate)
    try:
        milliseconds = float(header.get("FrameTime") or 0)
    except (TypeError, ValueError):
        milliseconds = 0
    return 1000 / milliseconds if 4 <= milliseconds <= 60_000 else USUAL_RATE


def animated(frames: Frames, numbers: list[int], media_type: str, look: Look) -> bytes:
    """Give frames as an animated GIF or WebP, or as MP4. Raises NotRenderable, IndexError, ObjectMissing."""
    if len(numbers) > MOST_ANIMATED:
        raise NotRenderable(f"At most {MOST_ANIMATED} frames are shown in motion.")
    first = picture(frames, numbers[0], look)
    if media_type != "video/mp4" and first.width * first.height * len(numbers) > LARGEST_ANIMATION:
        raise NotRenderable("The animation would be too large; ask for a smaller viewport.")
    rate = frames_per_second(frames.header)
    rest = (picture(frames, number, look) for number in numbers[1:])
    if media_type == "video/mp4":
        return _mp4(first, rest, rate, look.quality)
    output = BytesIO()
    duration = max(round(1000 / rate), 20)
    options = {"quality": look.quality} if media_type == "image/webp" else {}
    first.save(output, FORMATS[media_type], save_all=True, append_images=rest, duration=duration, loop=0, **options)
    return output.getvalue()


def _mp4(first: Image.Image, rest: Iterator[Image.Image], rate: float, quality: int) -> bytes:
    # By its name: the index comes before the pictures, for which the file is opened again.
    file = tempfile.NamedTemporaryFile(suffix=".mp4")  # noqa: SIM115  closed below
    with file, av.open(file.name, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        # Chroma has half the size: sides are even.
        stream.width, stream.height = first.width + first.width % 2, first.height + first.height % 2
        stream.pix_fmt = "yuv420p"
        factor = round(WORST_FACTOR - (WORST_FACTOR - BEST_FACTOR) * quality / 100)
        stream.options = {"crf": str(factor), **ENCODING}
        stream.codec_context.thread_count = THREADS
        for image in _each(first, rest):
            canvas = Image.new("RGB", (stream.width, stream.height))
            canvas.paste(image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")))
        container.mux(stream.encode())
        container.close()
        return Path(file.name).read_bytes()


def _each(first: Image.Image, rest: Iterator[Image.Image]) -> Iterator[Image.Image]:
    yield first
    yield from rest


def _stream_file(frames: Frames) -> IO[bytes]:
    """Give the video stream as a file."""
    file: IO[bytes] = tempfile.NamedTemporaryFile()  # noqa: SIM115  closed by who takes it
    for chunk in frames.stream():
        file.write(chunk)
    file.seek(0)
    return file


def poster(frames: Frames, look: Look) -> Image.Image:
    """Give a video's first picture. Raises NotRenderable, ObjectMissing."""
    try:
        with _stream_file(frames) as file, av.open(file) as container:
            for frame in container.decode(video=0):
                image: Image.Image = frame.to_image()
                return annotated(placed(image, look), frames.header, look.annotations)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise NotRenderable("The video can't be read here.") from error
    raise NotRenderable("The video has no picture.")


def as_mp4(frames: Frames) -> IO[bytes]:
    """Give a video as an MP4 file: its own stream where browsers play it, else encoded anew. Raises NotRenderable."""
    file = _stream_file(frames)
    try:
        with av.open(file) as container:
            if "mp4" in container.format.name and container.streams.video[0].codec_context.name in PLAYED:
                file.seek(0)
                return file
        file.seek(0)
        with file:
            return _in_mp4(file, frames_per_second(frames.header))
    except (av.FFmpegError, IndexError, ValueError) as error:
        file.close()
        raise NotRenderable("The video can't be read here.") from error


def _in_mp4(source: IO[bytes], rate: float) -> IO[bytes]:
    target: IO[bytes] = tempfile.NamedTemporaryFile(suffix=".mp4")  # noqa: SIM115  closed by who takes it
    with av.open(source) as reader, av.open(target.name, "w", options={"movflags": "faststart"}) as writer:
        video = reader.streams.video[0]
        if video.codec_context.name in PLAYED and video.average_rate:
            copied = writer.add_stream_from_template(video)
            for packet in reader.demux(video):
                if packet.dts is not None:
                    packet.stream = copied
                    writer.mux(packet)
        else:
            pace = video.average_rate or Fraction(rate).limit_denominator(1000)
            made = writer.add_stream("libx264", rate=pace)
            made.width, made.height, made.pix_fmt = video.width // 2 * 2, video.height // 2 * 2, "yuv420p"
            made.options = dict(ENCODING)
            made.codec_context.thread_count = THREADS
            for number, frame in enumerate(reader.decode(video)):
                plain = frame.reformat(made.width, made.height, "yuv420p")
                plain.pts, plain.time_base = number, 1 / pace
                writer.mux(made.encode(plain))
            writer.mux(made.encode())
    target.seek(0)
    return target
