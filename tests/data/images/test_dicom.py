"""DICOM: windows, rescaling, photometric interpretations, frames, compression, and damaged files; made by pydicom."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from petlbench.core.errors import InputError
from petlbench.data.images.decode import decode_image, is_image, read_image, to_rgb
from petlbench.data.images.dicom import is_dicom
from petlbench.data.images.files import read_header

pydicom = pytest.importorskip("pydicom")

UNCOMPRESSED = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"
RLE = "1.2.840.10008.1.2.5"
MPEG2 = "1.2.840.10008.1.2.4.100"

RAMP: NDArray[np.uint16] = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def dataset_of(pixels: NDArray[Any], bits: int = 12, **tags: Any) -> Any:
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UNCOMPRESSED
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits
    made.HighBit = bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def saved(dataset: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom(pixels: NDArray[Any], bits: int = 12, **tags: Any) -> bytes:
    return saved(dataset_of(pixels, bits, **tags))


def levels(content: bytes) -> NDArray[np.float32]:
    image = decode_image(content, "x")
    assert image.mode == "F"
    return np.asarray(image)


class TestGreys:
    def test_without_a_window_the_stored_bits_are_the_range(self) -> None:
        assert np.allclose(levels(dicom(RAMP)), RAMP * (255 / 4095), atol=1e-3)
        # A dim image stays dim: it is not stretched to its own brightest pixel.
        assert levels(dicom(RAMP // 2)).max() == pytest.approx(2047 * 255 / 4095, abs=1e-3)

    def test_monochrome1_is_inverted(self) -> None:
        inverted = levels(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
        assert np.allclose(inverted, 255 - levels(dicom(RAMP)), atol=1e-3)

    def test_the_window_cuts_and_spreads(self) -> None:
        seen = levels(dicom(RAMP, WindowCenter=1000, WindowWidth=201))
        assert (seen[RAMP <= 899].max(), seen[RAMP >= 1100].min()) == (0, 255)
        assert seen[RAMP == 1000] == pytest.approx(128.1, abs=1)

    def test_the_first_of_several_windows_counts(self) -> None:
        one = levels(dicom(RAMP, WindowCenter=1000, WindowWidth=200))
        two = levels(dicom(RAMP, WindowCenter=[1000, 3000], WindowWidth=[200, 50]))
        assert np.array_equal(one, two)

    def test_the_window_is_meant_for_rescaled_values(self) -> None:
        rescaled = dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
        units = RAMP.astype(int) * 2 - 1024
        seen = levels(rescaled)
        assert (seen[units < -160].max(), seen[units > 240].min()) == (0, 255)
        inside = (units > -150) & (units < 230)
        assert np.allclose(seen[inside], (units[inside] + 160) / 400 * 255, atol=1)

    def test_rescaling_alone_changes_nothing(self) -> None:
        plain = levels(dicom(RAMP))
        assert np.allclose(levels(dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1024)), plain, atol=1e-3)

    def test_signed_values(self) -> None:
        signed = RAMP.astype(np.int16) - 2048
        assert np.allclose(levels(dicom(signed)), levels(dicom(RAMP)), atol=1e-3)

    def test_a_voi_table_goes_before_the_window(self) -> None:
        table = pydicom.Dataset()
        table.LUTDescriptor = [4096, 0, 8]
        table.LUTData = (np.arange(4096)[::-1] // 16).astype(np.uint16).tobytes()
        content = dicom(RAMP, VOILUTSequence=[table], WindowCenter=1000, WindowWidth=200)
        assert np.array_equal(levels(content), 255 - RAMP // 16)

    def test_a_modality_table(self) -> None:
        table = pydicom.Dataset()
        table.LUTDescriptor = [4096, 0, 16]
        table.ModalityLUTType = "US"
        table.LUTData = (np.arange(4096) * 16).astype(np.uint16).tobytes()
        assert np.allclose(levels(dicom(RAMP, ModalityLUTSequence=[table])), RAMP * 16 * (255 / 65535), atol=1e-3)

    def test_sixteen_levels_in_one_of_eight_bits_are_kept(self) -> None:
        assert len(np.unique(levels(dicom(RAMP)))) == 4096

    def test_the_first_of_several_frames_is_taken(self) -> None:
        frames = np.stack([RAMP, RAMP[::-1]])
        content = dicom(frames, Rows=64, Columns=64, NumberOfFrames=2)
        assert np.array_equal(levels(content), levels(dicom(RAMP)))


class TestColours:
    def test_rgb(self) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
        content = dicom(colours, 8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
        assert np.array_equal(np.asarray(decode_image(content, "x")), colours)

    def test_ybr_becomes_rgb(self) -> None:
        white = np.full((2, 2, 3), (235, 128, 128), dtype=np.uint8)
        content = dicom(white, 8, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)
        assert decode_image(content, "x").getpixel((0, 0)) == (235, 235, 235)

    def test_palette(self) -> None:
        tags: dict[str, Any] = {}
        for colour, table in (("Red", [0, 65535]), ("Green", [0, 32768]), ("Blue", [65535, 0])):
            tags[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
            tags[f"{colour}PaletteColorLookupTableData"] = np.array(table, dtype=np.uint16).tobytes()
        content = dicom(np.array([[0, 1]], dtype=np.uint8), 8, PhotometricInterpretation="PALETTE COLOR", **tags)
        image = decode_image(content, "x")
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 255), (255, 128, 0)]


class TestCompressed:
    def test_rle(self) -> None:
        dataset = dataset_of(RAMP)
        dataset.compress(RLE)
        assert np.array_equal(levels(saved(dataset)), levels(dicom(RAMP)))

    def test_jpeg(self) -> None:
        grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "JPEG", quality=95)
        assert np.abs(levels(encapsulated(JPEG, stream.getvalue())) - grey).mean() < 2

    @pytest.mark.parametrize("syntax", [JPEG_LOSSLESS, JPEG_LS])
    def test_a_plugin_that_is_not_installed_is_named(self, syntax: str) -> None:
        if pydicom.pixels.get_decoder(pydicom.uid.UID(syntax)).is_available:
            pytest.skip("a plugin for it is installed")
        with pytest.raises(InputError) as caught:
            decode_image(encapsulated(syntax, b"\xff\xd8\xff\xd9"), "scan.dcm")
        assert caught.value.kind == "missing_package"
        assert "scan.dcm" in caught.value.message
        assert pydicom.uid.UID(syntax).name in caught.value.message
        assert "pylibjpeg" in caught.value.message
        assert "pip install" in caught.value.hint

    def test_a_film_is_no_image(self) -> None:
        with pytest.raises(InputError, match="MPEG2") as caught:
            decode_image(encapsulated(MPEG2, b"\0\0\1\xb3"), "x")
        assert caught.value.kind == "corrupt_image"

    def test_damaged_jpeg(self) -> None:
        with pytest.raises(InputError) as caught:
            decode_image(encapsulated(JPEG, b"\xff\xd8\xff\xd9"), "x")
        assert caught.value.kind == "corrupt_image"


def encapsulated(syntax: str, frame: bytes) -> bytes:
    grey = np.zeros((64, 64), dtype=np.uint8)
    dataset = dataset_of(grey, 8, PixelData=pydicom.encaps.encapsulate([frame]))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    return saved(dataset)


class TestBroken:
    @pytest.mark.parametrize("part", [0.0, 0.02, 0.05, 0.5, 0.99])
    def test_a_file_cut_off_is_named(self, tmp_path: Path, part: float) -> None:
        content = dicom(RAMP)
        file = tmp_path / "cut.dcm"
        file.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InputError) as caught:
            read_image(file)
        assert caught.value.kind == "corrupt_image"
        assert str(file) in caught.value.message

    @pytest.mark.parametrize("tag", ["PixelData", "Rows", "BitsStored", "PhotometricInterpretation"])
    def test_a_missing_element(self, tag: str) -> None:
        dataset = dataset_of(RAMP)
        delattr(dataset, tag)
        with pytest.raises(InputError) as caught:
            decode_image(saved(dataset), "x")
        assert caught.value.kind == "corrupt_image"

    def test_a_window_of_no_width(self) -> None:
        with pytest.raises(InputError, match="Window Width") as caught:
            decode_image(dicom(RAMP, WindowCenter=10, WindowWidth=0), "x")
        assert caught.value.kind == "corrupt_image"

    @pytest.mark.filterwarnings("ignore")
    @given(st.data())
    def test_any_damage_gives_an_image_or_an_input_error(self, data: st.DataObject) -> None:
        damaged = bytearray(SMALL)
        for _ in range(data.draw(st.integers(1, 5))):
            damaged[data.draw(st.integers(132, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert to_rgb(decode_image(bytes(damaged), "x")).mode == "RGB"
        except InputError as error:
            assert error.kind in ("corrupt_image", "missing_package")


SMALL = dicom(RAMP[:4, :4], WindowCenter=5, WindowWidth=4, RescaleSlope=1, RescaleIntercept=0)


def test_content_decides_what_is_dicom(tmp_path: Path) -> None:
    for name in ("scan", "scan.png", "1-1.dcm"):
        (tmp_path / name).write_bytes(SMALL)
        assert is_image(tmp_path / name)
        assert read_image(tmp_path / name).size == (4, 4)
    (tmp_path / "DICOMDIR").write_bytes(SMALL)
    assert not is_image(tmp_path / "DICOMDIR")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "scan").write_bytes(SMALL)
    for read in (read_image, is_image):
        with pytest.raises(InputError) as caught:
            read(tmp_path / "scan")
        assert caught.value.kind == "missing_package"
        assert "petlbench[dicom]" in caught.value.hint


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_and_header(tmp_path: Path, implicit: bool) -> None:
    stream, bare = io.BytesIO(), dataset_of(RAMP)
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare["PixelData"].VR = "OW"
    bare.save_as(stream, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    content = stream.getvalue()
    assert content[128:132] != b"DICM"
    file = tmp_path / "old_export"
    file.write_bytes(content)
    assert is_image(file)
    assert np.array_equal(levels(content), levels(dicom(RAMP)))
    header = read_header(file)
    assert (header.format, header.width, header.height) == ("DICOM", RAMP.shape[1], RAMP.shape[0])


def test_what_is_no_dicom_file() -> None:
    for content in (b"", b"\x08\x00", b"\x89PNG\r\n" + bytes(200), b"\x08\x00\x01\x00" + b"\xff" * 200, bytes(132)):
        assert not is_dicom(content)


def test_a_head_that_does_not_say_how_large_the_image_is(tmp_path: Path) -> None:
    made = dataset_of(RAMP)
    del made.Columns
    made.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"x\.dcm cannot be decoded: it does not say how many rows"):
        read_header(tmp_path / "x.dcm")
