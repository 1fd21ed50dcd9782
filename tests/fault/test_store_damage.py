"""Whatever happens to the files of a generation, it is refused before use, with a reason."""

import os
import shutil
import zlib

import numpy as np
import pytest

from ruvector import limits
from ruvector.errors import StoreDamaged, StoreError, StoreFormat
from ruvector.store import layout, open_generation, write_generation

pytestmark = pytest.mark.fault

SECTIONS = {
    "vectors": np.random.default_rng(1).standard_normal((20_000, 4)).astype(np.float32),
    "keys": np.arange(100, dtype=np.int64),
    "none": np.empty(0, np.uint8),
}
FILES = ("vectors.section", "keys.section", "none.section", layout.CHECKSUM_FILE, layout.MANIFEST_FILE)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_generation(tmp_path_factory.mktemp("store") / "gen-000001", SECTIONS, meta={"position": "1:1:"}).path


@pytest.fixture
def generation(pristine, tmp_path):
    copy = tmp_path / pristine.name
    shutil.copytree(pristine, copy)
    return copy


def refused(path, *, file=None):
    """Open and expect a refusal that names the file."""
    with pytest.raises(StoreError) as caught:
        open_generation(path)
    assert isinstance(caught.value, (StoreDamaged, StoreFormat))
    if file is not None:
        assert file in str(caught.value)
    return caught.value


def rewrite(file, data):
    """Replace the content in place, keeping the mode."""
    with open(file, "r+b") as handle:
        handle.truncate(0)
        handle.write(data)


def flip_positions(size):
    """Every byte of what decides (start of the head, small files), and first, middle and last byte of every page."""
    everywhere = range(min(size, 256)) if size > limits.PAGE_BYTES else range(size)
    in_pages = (
        position
        for start in range(0, size, limits.PAGE_BYTES)
        for position in (start, start + limits.PAGE_BYTES // 2, start + limits.PAGE_BYTES - 1)
    )
    return sorted({position for position in (*everywhere, *in_pages, size - 1) if 0 <= position < size})


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_byte_is_noticed(generation, file):
    data = (generation / file).read_bytes()
    positions = flip_positions(len(data))
    if len(positions) > 1_000:
        positions = positions[:: len(positions) // 1_000] + positions[-1:]
    for position in positions:
        for mask in (0x01, 0x80):
            with open(generation / file, "r+b") as handle:
                handle.seek(position)
                handle.write(bytes([data[position] ^ mask]))
            refused(generation)
            with open(generation / file, "r+b") as handle:
                handle.seek(position)
                handle.write(data[position : position + 1])
    open_generation(generation).close()


@pytest.mark.parametrize("file", FILES)
def test_every_truncation_and_extension_is_noticed(generation, file):
    data = (generation / file).read_bytes()
    lengths = {0, 1, 7, len(data) // 2, len(data) - 1, len(data) + 1, len(data) + limits.PAGE_BYTES}
    lengths.update(range(0, len(data), limits.PAGE_BYTES))
    for length in sorted(lengths - {len(data)}):
        rewrite(generation / file, data[:length].ljust(length, b"\0"))
        refused(generation)


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_named(generation, file):
    (generation / file).unlink()
    refused(generation, file=file)


@pytest.mark.parametrize("file", FILES)
def test_link_fifo_folder_and_device_are_refused(generation, file, tmp_path):
    path = generation / file
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    refused(generation, file=file)
    path.unlink()
    os.mkfifo(path)
    refused(generation, file=file)
    path.unlink()
    path.mkdir()
    refused(generation, file=file)


def test_link_in_place_of_the_generation_is_refused(generation, tmp_path):
    (tmp_path / "link").symlink_to(generation)
    with pytest.raises(StoreError):
        open_generation(tmp_path / "link")


def test_missing_generation_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        open_generation(tmp_path / "gen-000009")


@pytest.mark.parametrize("file", ["", *FILES])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_files_others_can_write_are_refused(generation, file, mode):
    path = generation / file
    path.chmod(mode | 0o100 if path.is_dir() else mode)
    refused(generation)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("file", ["", *FILES])
def test_files_of_another_account_are_refused(generation, file):
    os.chown(generation / file, 65_533, 65_533)
    error = refused(generation)
    assert "another account" in str(error)


@pytest.mark.parametrize("file", FILES)
def test_file_of_another_generation_is_refused(generation, tmp_path, file):
    changed = {**SECTIONS, "vectors": SECTIONS["vectors"] + 1, "keys": SECTIONS["keys"] + 1}
    other = write_generation(tmp_path / "other", changed, meta={"position": "2:2:"}).path
    shutil.copyfile(other / file, generation / file)
    refused(generation)


def test_file_of_another_generation_is_refused_without_checksums(generation, tmp_path):
    other = write_generation(tmp_path / "other", SECTIONS, meta={}).path
    shutil.copyfile(other / "vectors.section", generation / "vectors.section")
    with pytest.raises(StoreDamaged, match="another generation"):
        open_generation(generation, verify=False)


def test_head_is_checked_without_checksums(generation):
    data = (generation / "keys.section").read_bytes()
    for position, kind in [
        (0, StoreFormat),
        (8, StoreFormat),
        (12, StoreFormat),
        (16, StoreDamaged),
        (100, StoreDamaged),
    ]:
        changed = bytearray(data)
        changed[position] ^= 0xFF
        rewrite(generation / "keys.section", changed)
        with pytest.raises(kind, match=r"keys\.section"):
            open_generation(generation, verify=False)


@pytest.mark.parametrize(("old", "new"), [
    (b'"format":3', b'"format":1'),
    (b'"byte_order":"little"', b'"byte_order":"big"'),
    (b'"page_bytes":4096', b'"page_bytes":65536'),
])  # fmt: skip
def test_manifest_of_another_version_or_machine_is_refused(generation, old, new):
    forge(generation, old, new)
    with pytest.raises(StoreFormat, match="this program reads"):
        open_generation(generation)


@pytest.mark.parametrize(("old", "new"), [
    (b'"name":"keys"', b'"name":"../x"'),
    (b'"name":"keys"', b'"name":"vectors"'),
    (b'"name":"keys"', b'"name":7'),
    (b'"element":"i8"', b'"element":"O8"'),
    (b'"element":"i8"', b'"element":"f1"'),
    (b'"shape":[100]', b'"shape":[101]'),
    (b'"shape":[100]', b'"shape":[-100]'),
    (b'"shape":[100]', b'"shape":[1e2]'),
    (b'"shape":[100]', b'"shape":[true]'),
    (b'"shape":[100]', b'"shape":[4611686018427387904,4]'),
    (b'"shape":[100]', b'"shape":[10,10]'),
    (b'"shape":[100]', b'"shape":{}'),
    (b'"shape":[100]', b'"shape":[1,1,1,1,100]'),
    (b'"file_bytes":4896', b'"file_bytes":4897'),
    (b'"sections":[', b'"sections":[7,'),
    (b'"sections":[', b'"x":['),
    (b'"meta":{', b'"meta":7,"x":{'),
    (b'"format":3', b'"format":NaN'),
    (b'"checksums_crc32":', b'"checksums_crc32":1'),
])  # fmt: skip
def test_forged_manifest_is_refused(generation, old, new):
    """The checksum protects against accidents; a manifest that was rewritten with a right one is still checked."""
    forge(generation, old, new)
    refused(generation)


def forge(generation, old, new):
    data = (generation / layout.MANIFEST_FILE).read_bytes()
    body = data[len(b'{"crc32":"00000000","manifest":') : -2]
    assert old in body
    body = body.replace(old, new, 1)
    rewrite(generation / layout.MANIFEST_FILE, b'{"crc32":"%08x","manifest":%s}\n' % (zlib.crc32(body), body))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]" * 9, b"\x80\x04N.", b'{"crc32":"00000000","manifest":}\n', b"[" * 99_999]
)
def test_something_else_as_manifest_is_refused(generation, content):
    rewrite(generation / layout.MANIFEST_FILE, content)
    refused(generation, file=layout.MANIFEST_FILE)


def test_deep_manifest_is_refused(generation):
    body = b'{"meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    rewrite(generation / layout.MANIFEST_FILE, b'{"crc32":"%08x","manifest":%s}\n' % (zlib.crc32(body), body))
    refused(generation, file=layout.MANIFEST_FILE)


def test_no_descriptor_stays_open(generation):
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        open_generation(generation).close()
        (generation / "keys.section").chmod(0o666)
        refused(generation)
        (generation / "keys.section").chmod(0o600)
    assert len(os.listdir("/dev/fd")) == before
