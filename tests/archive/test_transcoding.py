"""Transcoding: the same pixels in every transfer syntax, judged by other decoders than ours."""

from __future__ import annotations

import hashlib
import subprocess
from io import BytesIO
from pathlib import Path
from shutil import which
from typing import Any

import data_store
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from studies.archive.codecs import DECODABLE, LOSSY_JPEG
from studies.archive.errors import NotTranscodable
from studies.archive.frames import Frames
from studies.archive.transcoding import can_transcode, targets, transcoded_file, transcoded_frame
from studies.models import Instance
from tests.factories import SHARED, make_instance

pytestmark = pytest.mark.django_db

TO_NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
TO_COMPRESSED = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLosslessRPCL]
MAY_LOSE = [JPEGLSNearLossless, JPEG2000, HTJ2K, HTJ2KLossless]
# What the samples of these mean isn't decided by their transfer syntax; no codec takes them.
UNCOMPRESSIBLE_BITS = {1, 32, 64}
LARGEST = 600_000


def real_files() -> list[Path]:
    """Give every real image with pixels that pydicom decodes, of pydicom, pydicom-data and ../shared."""
    folders = [
        Path(pydicom.data.__file__).parent / "test_files",
        Path(data_store.__file__).parent / "data",
        SHARED / "dicom" / "codecs",
    ]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.dcm")):
            if path.stat().st_size > LARGEST:
                continue
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if "Rows" not in dataset or dataset.get("SOPInstanceUID") is None or "SOPClassUID" not in dataset:
                continue
            if getattr(dataset.file_meta, "TransferSyntaxUID", None) not in DECODABLE:
                continue
            try:
                expected(path)
            except Exception:
                continue
            found[path.name] = path
    return list(found.values())


def expected(source: Path | BytesIO, syntax: str = "") -> np.ndarray:
    """Decode all frames by pydicom: samples as stored, but RGB of lossy JPEG."""
    syntax = syntax or pydicom.dcmread(source, stop_before_pixels=True).file_meta.TransferSyntaxUID
    if isinstance(source, BytesIO):
        source.seek(0)
    array = pixel_array(source, raw=syntax not in LOSSY_JPEG)
    return array.astype(array.dtype.newbyteorder("="))


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return real_files()


@pytest.fixture
def archived(north: Any, ingest_files: Any, files: list[Path]) -> list[tuple[Path, Instance]]:
    """Archive each file, some as second versions of others."""
    found = []
    for path in files:
        (outcome,) = ingest_files(north, path)
        if outcome.status in {"stored", "conflict"}:
            digest = hashlib.sha256(path.read_bytes()).digest()
            found.append((path, Instance.objects.select_related("series__study").get(sha256=digest)))
    assert len(found) > 60
    return found


@pytest.mark.parametrize("target", TO_NATIVE, ids=lambda t: t.name)
def test_every_real_image_decompresses_to_the_same_samples(target: UID, archived: list[tuple[Path, Instance]]) -> None:
    for path, instance in archived:
        content = b"".join(transcoded_file(instance, target))
        dataset = pydicom.dcmread(BytesIO(content))
        assert dataset.file_meta.TransferSyntaxUID == target, path.name
        given = pixel_array(dataset, raw=True)
        wanted = expected(path, instance.transfer_syntax_uid)
        assert np.array_equal(given, wanted), path.name
        source = pydicom.dcmread(path)
        kept = {e.tag for e in source if e.tag.group not in {0x7FE0, 0xFFFC} and e.tag.element != 0}
        assert {e.tag for e in dataset} >= kept, path.name


@pytest.mark.parametrize("target", TO_COMPRESSED, ids=lambda t: t.name)
def test_every_real_image_compresses_without_loss(target: UID, archived: list[tuple[Path, Instance]]) -> None:
    done = 0
    for path, instance in archived:
        wanted = expected(path, instance.transfer_syntax_uid)
        try:
            content = b"".join(transcoded_file(instance, target))
        except NotTranscodable:
            assert instance.bits_allocated in UNCOMPRESSIBLE_BITS or _has_bits_beyond_stored(path), path.name
            continue
        if instance.transfer_syntax_uid == target:
            assert content == path.read_bytes()
            continue
        done += 1
        dataset = pydicom.dcmread(BytesIO(content))
        assert np.array_equal(pixel_array(dataset, raw=True), wanted), path.name
    assert done > 40


@pytest.mark.parametrize("target", MAY_LOSE, ids=lambda t: t.name)
def test_syntaxes_that_may_lose_are_filled_without_loss(target: UID, north: Any, ingest_files: Any) -> None:
    ingest_files(north, make_instance(BitsStored=12, HighBit=11))
    instance = Instance.objects.select_related("series__study").get()
    dataset = pydicom.dcmread(BytesIO(b"".join(transcoded_file(instance, target))))
    assert np.array_equal(dataset.pixel_array, np.arange(64 * 64).reshape(64, 64))


@pytest.mark.skipif(which("dcmdjpeg") is None, reason="dcmtk isn't installed")
@pytest.mark.parametrize(
    ("target", "judge"), [(JPEGLosslessSV1, "dcmdjpeg"), (JPEGLSLossless, "dcmdjpls"), (RLELossless, "dcmdrle")]
)
@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm", "examples_palette.dcm", "emri_small.dcm"]
)
def test_dcmtk_reads_what_was_compressed(
    name: str, target: UID, judge: str, north: Any, ingest_files: Any, tmp_path: Path
) -> None:
    path = Path(str(pydicom.data.get_testdata_file(name)))
    ingest_files(north, path)
    instance = Instance.objects.select_related("series__study").get()
    ours, theirs = tmp_path / "ours.dcm", tmp_path / "theirs.dcm"
    ours.write_bytes(b"".join(transcoded_file(instance, target)))
    subprocess.run([judge, ours, theirs], check=True)
    given, wanted = pydicom.dcmread(theirs), pydicom.dcmread(path)
    assert np.array_equal(pixel_array(given, raw=True), pixel_array(wanted, raw=True))


@pytest.mark.skipif(which("dcmdjpeg") is None, reason="dcmtk isn't installed")
def test_lossy_jpeg_of_12_bits_is_read_as_dcmtk_reads_it(
    shared: Path, north: Any, ingest_files: Any, tmp_path: Path
) -> None:
    path = shared / "dicom" / "codecs" / "MR1_JPLY.dcm"
    ingest_files(north, path)
    samples, _ = Frames(Instance.objects.select_related("series__study").get()).samples(1)
    subprocess.run(["dcmdjpeg", path, tmp_path / "theirs.dcm"], check=True)
    assert np.abs(samples.astype(int) - pydicom.dcmread(tmp_path / "theirs.dcm").pixel_array).max() <= 1


def test_signed_samples_of_all_values_survive_every_codec(north: Any, ingest_files: Any) -> None:
    noise = np.random.default_rng(5).integers(-32768, 32768, (2, 70, 90)).astype(np.int16)
    ingest_files(north, make_instance(pixels=noise.view(np.uint16), PixelRepresentation=1))
    instance = Instance.objects.select_related("series__study").get()
    for target in (*TO_NATIVE, *TO_COMPRESSED):
        dataset = pydicom.dcmread(BytesIO(b"".join(transcoded_file(instance, target))))
        assert np.array_equal(dataset.pixel_array, noise), target.name


@pytest.mark.parametrize("target", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("name", ["SC_ybr_full_422_uncompressed.dcm", "SC_rgb.dcm"])
def test_colours_in_lossless_jpeg_are_what_the_data_set_says(
    name: str, target: UID, north: Any, ingest_files: Any
) -> None:
    source = Path(str(pydicom.data.get_testdata_file(name)))
    ingest_files(north, source)
    dataset = pydicom.dcmread(BytesIO(b"".join(transcoded_file(Instance.objects.get(), target))))
    original = pydicom.dcmread(source)
    assert np.array_equal(pixel_array(dataset, raw=True), pixel_array(original, raw=True))
    # As shown: whoever reads it neither takes YCbCr for RGB nor turns it into RGB twice.
    assert np.array_equal(pixel_array(dataset), pixel_array(original))


def test_one_frame_comes_in_any_syntax(north: Any, ingest_files: Any) -> None:
    pixels = np.random.default_rng(6).integers(0, 4096, (3, 64, 65)).astype(np.uint16)
    ingest_files(north, make_instance(pixels=pixels))
    frames = Frames(Instance.objects.select_related("series__study").get())
    assert transcoded_frame(frames, 2, ExplicitVRLittleEndian) == pixels[1].tobytes()
    stream = transcoded_frame(frames, 3, JPEG2000Lossless)
    assert np.array_equal(Image.open(BytesIO(stream)), pixels[2])
    with pytest.raises(IndexError):
        transcoded_frame(frames, 4, ExplicitVRLittleEndian)


def test_loss_must_be_allowed_and_is_declared(north: Any, ingest_files: Any) -> None:
    ingest_files(north, Path(str(pydicom.data.get_testdata_file("SC_rgb.dcm"))))
    instance = Instance.objects.select_related("series__study").get()
    with pytest.raises(NotTranscodable):
        transcoded_file(instance, JPEGBaseline8Bit)
    dataset = pydicom.dcmread(BytesIO(b"".join(transcoded_file(instance, JPEGBaseline8Bit, allow_lossy=True))))
    assert dataset.LossyImageCompression == "01"
    assert dataset.LossyImageCompressionRatio > 1
    original = pydicom.dcmread(str(pydicom.data.get_testdata_file("SC_rgb.dcm"))).pixel_array
    assert np.abs(dataset.pixel_array.astype(int) - original).mean() < 4


def test_what_cant_be_decoded_or_has_no_frames_is_refused_before_the_first_byte(north: Any, ingest_files: Any) -> None:
    assert not can_transcode(MPEG4HP41, ExplicitVRLittleEndian)
    assert not can_transcode(ExplicitVRLittleEndian, JPEGExtended12Bit, allow_lossy=True)
    assert targets(MPEG4HP41) == [MPEG4HP41]
    broken = make_instance(SOPInstanceUID="1.2.9")
    ingest_files(north, broken)
    instance = Instance.objects.select_related("series__study").get()
    instance.transfer_syntax_uid = JPEG2000Lossless
    with pytest.raises(NotTranscodable):
        transcoded_file(instance, ExplicitVRLittleEndian)


def _has_bits_beyond_stored(path: Path) -> bool:
    dataset = pydicom.dcmread(path)
    return bool(dataset.BitsStored < dataset.BitsAllocated)


def test_a_broken_run_is_an_error_of_its_own_and_not_the_decoders(north: Any, ingest_files: Any) -> None:
    dataset = pydicom.dcmread(BytesIO(make_instance(pixels=np.zeros((4, 4), dtype=np.uint16))))
    # Two segments, each of a run of 128 where 16 bytes are due (PS3.5 Annex G).
    runs = b"\x81\x01" * 8
    frame = np.array([2, 64, 64 + len(runs), *[0] * 13], dtype="<u4").tobytes() + runs * 2
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    buffer = BytesIO()
    dataset.save_as(buffer)
    ingest_files(north, buffer.getvalue())
    with pytest.raises(NotTranscodable):
        Frames(Instance.objects.get()).samples(1)


@pytest.mark.parametrize(("rows", "columns"), [(1024, 256), (1000, 256), (1024, 300), (256, 1024)])
def test_a_stream_of_another_size_than_the_data_set_says_is_not_given(
    rows: int, columns: int, north: Any, ingest_files: Any
) -> None:
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file("JPEG-lossy.dcm")))
    assert (dataset.file_meta.TransferSyntaxUID, dataset.Rows, dataset.Columns) == (JPEGExtended12Bit, 1024, 256)
    dataset.Rows, dataset.Columns = rows, columns
    buffer = BytesIO()
    dataset.save_as(buffer)
    ingest_files(north, buffer.getvalue())
    frames = Frames(Instance.objects.get())
    if (rows, columns) == (1024, 256):
        assert len(frames.little_endian(1)) == rows * columns * 2
        return
    with pytest.raises(NotTranscodable):
        frames.little_endian(1)
    with pytest.raises(NotTranscodable):
        b"".join(transcoded_file(Instance.objects.select_related("series__study").get(), ExplicitVRLittleEndian))


def test_an_element_that_cannot_be_written_is_an_error_of_its_own(north: Any, ingest_files: Any) -> None:
    content = make_instance(StudyComments="hello").replace(b"\x32\x00\x00\x40LT", b"\x32\x00\x00\x40XX")
    ingest_files(north, content)
    instance = Instance.objects.get()
    assert b"".join(transcoded_file(instance, ExplicitVRLittleEndian)) == content
    with pytest.raises(NotTranscodable):
        b"".join(transcoded_file(instance, ImplicitVRLittleEndian))
