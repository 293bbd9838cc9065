import os
import zlib

import numpy as np
import pytest
from PIL import Image
from transfers import (
    BATCH_ROWS,
    SHAPE,
    assert_codes_of_images,
    assert_nothing_unfinished,
    dense,
    encode,
    expected_codes,
    images,
    save_image,
    small_model,
    told,
)

from sc2keras.applications import preprocess_input
from sc2keras.io import TransferError


@pytest.mark.parametrize("shape", [SHAPE, (16,)])
def test_codes_of_a_folder_of_images(tmp_path, folder, shape):
    folder, x = folder
    model = small_model(tmp_path / "model.keras", shape=shape)
    output = tmp_path / "codes.npy"
    encode(tmp_path / "model.keras", folder, output, batch_rows=2)
    expected = model.encode(preprocess_input(x.reshape(-1, *shape)), batch_size=2)
    np.testing.assert_array_equal(dense(output), expected)


@pytest.mark.parametrize("shape", [(4, 4, 3), (48,)])
def test_images_are_converted_to_the_colours_of_the_model(tmp_path, shape):
    model = small_model(tmp_path / "model.keras", shape=shape)
    folder = tmp_path / "photos"
    folder.mkdir()
    colour, grey = images(1, (4, 4, 3))[0], images(1)[0]
    Image.fromarray(colour).save(folder / "1.png")
    Image.fromarray(grey[..., 0]).save(folder / "2.png")
    output = encode(tmp_path / "model.keras", folder, tmp_path / "codes.npy")
    x = np.stack([colour, np.repeat(grey, 3, axis=2)]).reshape(2, *shape)
    np.testing.assert_array_equal(dense(output), model.encode(preprocess_input(x)))


def test_images_of_another_size_need_resize(saved, tmp_path, folder):
    model, path = saved
    folder, x = folder
    large = Image.fromarray(images(1, (9, 7))[0])
    large.save(folder / "e.png")
    output = tmp_path / "codes.npy"
    with pytest.raises(TransferError, match=r"e\.png is 7 × 9 .*4 × 4.*resize=True"):
        encode(path, folder, output)
    assert_nothing_unfinished(tmp_path)
    encode(path, folder, output, resize=True)
    resized = np.asarray(large.resize((4, 4), Image.Resampling.BILINEAR))
    x = np.insert(x, 3, resized[..., np.newaxis], axis=0)
    expected = model.encode(preprocess_input(x), batch_size=BATCH_ROWS)
    np.testing.assert_array_equal(dense(output), expected)


def test_images_that_cannot_be_read_are_errors(saved, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    output = tmp_path / "codes.npy"

    def refused(message, model=saved[1], **options):
        with pytest.raises(TransferError, match=message):
            encode(model, folder, output, **options)
        assert_nothing_unfinished(tmp_path)

    refused("holds no image")
    image = folder / "a.png"
    image.write_text("no image")
    refused(r"a\.png cannot be read as an image")
    Image.fromarray(images(1)[0, ..., 0].astype("uint16")).save(image)
    refused(r"a\.png has more than 8 bits")
    Image.fromarray(images(1, (5, 4))[0]).save(image)
    vectors = tmp_path / "vectors.keras"
    small_model(vectors, shape=(16,))
    refused(r"a\.png is 4 × 5, but the model takes vectors of 16 values", vectors)
    refused("resize=True needs height and width", vectors, resize=True)
    many = tmp_path / "many.keras"
    small_model(many, shape=(4, 4, 2))
    refused(r"inputs of shape \(4, 4, 2\), which no image has", many)


def test_an_image_that_is_cut_off_is_an_error_that_names_it(saved, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(images(1)[0, ..., 0]).save(folder / "a.bmp")
    content = (folder / "a.bmp").read_bytes()
    (folder / "a.bmp").write_bytes(content[:-8])
    with pytest.raises(TransferError, match=r"a\.bmp cannot be read as an image.*tr"):
        encode(saved[1], folder, tmp_path / "codes.npy")


def with_chunk(path, kind, content, after=None):
    """Adds a chunk to a PNG, before its pixels or after a chunk."""
    data, at = path.read_bytes(), path.read_bytes().index(b"IDAT") - 4
    if after is not None:
        at = data.index(after) - 4
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    crc = zlib.crc32(kind + content).to_bytes(4, "big")
    chunk = len(content).to_bytes(4, "big") + kind + content + crc
    path.write_bytes(data[:at] + chunk + data[at:])


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


TURNED = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize(
    ("value", "late"), [*((value, False) for value in TURNED), (6, True), (8, True)]
)
def test_images_are_turned_as_their_exif_says(tmp_path, value, late):
    model = small_model(tmp_path / "model.keras", shape=(4, 6, 1))
    upright = images(1, (4, 6))[0]
    stored = next(
        x
        for x in (turn(upright) for turn in TURNED.values())
        if np.array_equal(TURNED[value](x), upright)
    )
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    exif = orientation(value)
    if late:
        Image.fromarray(stored).save(path)
        with_chunk(path, b"eXIf", exif.tobytes()[6:], after=b"IDAT")
    else:
        Image.fromarray(stored).save(path, exif=exif)
    output = tmp_path / "codes.npy"
    encode(tmp_path / "model.keras", path.parent, output)
    x = preprocess_input(upright[np.newaxis, ..., np.newaxis])
    np.testing.assert_array_equal(dense(output), expected_codes(model, x))


def test_the_size_of_an_image_is_that_after_it_is_turned(tmp_path):
    small_model(tmp_path / "model.keras", shape=(4, 6, 1))
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    image = Image.fromarray(images(1, (4, 6))[0])
    for exif in (None, orientation(6)):
        image.save(path, **({} if exif is None else {"exif": exif}))
        if exif is None:
            with_chunk(path, b"eXIf", orientation(6).tobytes()[6:], after=b"IDAT")
        with pytest.raises(TransferError, match=r"a\.png is 4 × 6 .*6 × 4 is needed"):
            output = tmp_path / "codes.npy"
            encode(tmp_path / "model.keras", path.parent, output)
        assert_nothing_unfinished(tmp_path)


def translucent(mode, alpha):
    """An image of a mode with alpha, or with a colour that is transparent."""
    grey = Image.fromarray(images(1, (4, 4))[0] // 2 * 2)
    if mode in ("L", "RGB"):
        value = int(np.asarray(grey)[0, 0]) + (alpha == 255)
        return grey.convert(mode), {
            "transparency": (value,) * 3 if mode == "RGB" else value
        }
    if mode == "P":
        image = grey.quantize(4)
        return image, {"transparency": bytes([255, 255, alpha, 255])}
    image = grey.convert(mode)
    band = np.full((4, 4), 255, "uint8")
    band[1, 2] = alpha
    image.putalpha(Image.fromarray(band))
    return image, {}


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("LA", 1), ("RGBA", 3), ("P", 3), ("L", 1), ("RGB", 3), ("LA", 4), ("P", 4)],
)
def test_transparency_is_an_error_where_the_model_has_none(
    tmp_path, recwarn, mode, channels
):
    model = small_model(tmp_path / "model.keras", shape=(4, 4, channels))
    path, output = tmp_path / "photos" / "a.png", tmp_path / "codes.npy"
    path.parent.mkdir()

    def run():
        encode(tmp_path / "model.keras", path.parent, output, overwrite=True)

    opaque, options = translucent(mode, 255)
    opaque.save(path, **options)
    run()
    x = np.asarray(opaque.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    x = preprocess_input(x.reshape(1, 4, 4, channels))
    np.testing.assert_array_equal(dense(output), expected_codes(model, x))
    image, options = translucent(mode, 254)
    image.save(path, **options)
    if channels == 4:
        run()
        with Image.open(path) as image:
            x = preprocess_input(np.asarray(image.convert("RGBA"))[np.newaxis])
        assert x[..., 3].min() < 1
        np.testing.assert_array_equal(dense(output), expected_codes(model, x))
    else:
        with pytest.raises(TransferError, match=r"a\.png is transparent .*background"):
            run()
        assert_nothing_unfinished(tmp_path)
    assert not [w for w in recwarn if "ransparen" in str(w.message)]


def test_an_animated_image_is_an_error(saved, tmp_path):
    path = tmp_path / "photos" / "a.png"
    frames = [Image.fromarray(x[..., 0]) for x in images(3)]
    path.parent.mkdir()
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(TransferError, match=r"a\.png holds 3 images.*Save the one"):
        encode(saved[1], path.parent, tmp_path / "codes.npy")


@pytest.mark.parametrize(("kind", "n_channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_images_of_16_bits_are_errors(tmp_path, kind, n_channels):
    small_model(tmp_path / "model.keras", shape=(4, 4, 3))
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    header = b"\x00\x00\x00\x04\x00\x00\x00\x04\x10" + bytes([kind, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x00IDAT" + bytes(4))
    with_chunk(path, b"IHDR", header)
    rows = 4 * (b"\x00" + bytes(range(8 * n_channels)))
    content = path.read_bytes().removesuffix(b"\x00\x00\x00\x00IDAT" + bytes(4))
    path.write_bytes(content)
    for name, data in ((b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        crc = zlib.crc32(name + data).to_bytes(4, "big")
        content += len(data).to_bytes(4, "big") + name + data + crc
    path.write_bytes(content)
    with pytest.raises(TransferError, match=r"a\.png has more than 8 bits.*Convert it"):
        encode(tmp_path / "model.keras", path.parent, tmp_path / "codes.npy")


def test_other_kinds_of_images_are_converted(tmp_path):
    model = small_model(tmp_path / "model.keras", shape=(4, 4, 1))
    folder = tmp_path / "photos"
    folder.mkdir()
    colour = Image.fromarray(images(1, (4, 4, 3))[0])
    kinds = [colour.quantize(8), colour.convert("1"), colour.convert("CMYK")]
    for name, image in zip(["a.png", "b.bmp", "c.jpg"], kinds, strict=True):
        image.save(folder / name)
    x = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            x.append(np.asarray(image.convert("L"))[..., np.newaxis])
    output = tmp_path / "codes.npy"
    encode(tmp_path / "model.keras", folder, output)
    assert_codes_of_images(model, output, x)


def test_linked_folders_are_followed_but_not_in_circles(
    saved, tmp_path, folder, recwarn
):
    model, path = saved
    folder, x = folder
    elsewhere = tmp_path / "elsewhere"
    save_image(elsewhere / "deep" / "1.png", x[0])
    (folder / "link").symlink_to(elsewhere)
    (folder / "link2").symlink_to(elsewhere / "deep")
    (elsewhere / "deep" / "back").symlink_to(folder)
    (folder / "a" / "itself").symlink_to(folder / "a")
    output = encode(path, folder, tmp_path / "codes.npy")
    # From link2 a way leads back to the folder, but not from there to link2 again.
    assert_codes_of_images(model, output, [*x, x[0], x[0]])
    assert "5 other files are left out" in str(told(recwarn)[0].message)


def test_files_that_are_left_out_are_told(saved, tmp_path, folder, recwarn):
    folder, _ = folder
    encode(saved[1], folder, tmp_path / "a.npy")
    (note,) = (str(warning.message) for warning in told(recwarn))
    assert "2 other files are left out" in note and ".hidden.png" in note
    for name in (".hidden.png", "labels.txt"):
        (folder / name).unlink()
    encode(saved[1], folder, tmp_path / "b.npy")
    assert not told(recwarn)
    for name in ("x.tif", "x.gif", "a/x.webp", "link"):
        (folder / name).touch() if name != "link" else (folder / name).symlink_to(
            "link"
        )
    encode(saved[1], folder, tmp_path / "c.npy")
    (note,) = (str(warning.message) for warning in told(recwarn))
    assert "4 other files are left out, the first is" in note


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nothing")])
def test_what_has_the_name_of_an_image_but_is_none_is_an_error(
    saved, tmp_path, folder, make
):
    make(folder[0] / "e.png")
    with pytest.raises(TransferError, match=r"e\.png cannot be read as an image.*Repl"):
        encode(saved[1], folder[0], tmp_path / "codes.npy")
