"""What is packed is an image that containerd and Docker can read, the same whenever its contents are."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

from images.archive import write_archive
from images.layers import Layer, pack
from images.recipe import IMAGES


def _tree(folder: Path, *, mtime: int) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name in ("b", "a"):
        (folder / "bin" / name).write_text(name)
        os.utime(folder / "bin" / name, (mtime, mtime))
    (folder / "bin" / "link").symlink_to("a")
    os.link(folder / "bin" / "a", folder / "bin" / "hard")
    return folder


def test_a_layer_depends_on_its_contents_only(tmp_path: Path) -> None:
    first = pack(_tree(tmp_path / "one", mtime=1), tmp_path / "one.tar")
    second = pack(_tree(tmp_path / "two", mtime=2_000_000), tmp_path / "two.tar")
    assert first == second
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert archive.getnames() == ["bin", "bin/a", "bin/b", "bin/hard", "bin/link"]
        assert {(entry.uid, entry.gid, entry.mtime) for entry in archive} == {(0, 0, 0)}
        hard = archive.extractfile("bin/hard")
        assert hard is not None
        assert hard.read() == b"a"
    (tmp_path / "two" / "bin" / "a").write_text("changed")
    assert pack(tmp_path / "two", tmp_path / "two.tar") != first


def test_an_archive_holds_what_its_index_and_manifest_name(tmp_path: Path) -> None:
    digest = pack(_tree(tmp_path / "one", mtime=1), tmp_path / "one.tar")
    layer = Layer(tmp_path / "one.tar", digest, tmp_path / "one")
    path = tmp_path / "images" / "worker.tar"
    told = write_archive(IMAGES["worker"], "9", [layer], path)
    with tarfile.open(path) as archive:
        blobs = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    for name, blob in blobs.items():
        if name.startswith("blobs/sha256/"):
            assert name == f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}"
    (entry,) = json.loads(blobs["index.json"])["manifests"]
    assert entry["digest"] == told
    assert entry["annotations"]["io.containerd.image.name"] == "tickwheel.io/worker:9"
    manifest = json.loads(blobs[f"blobs/{told.replace(':', '/')}"])
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert len(blobs[f"blobs/{descriptor['digest'].replace(':', '/')}"]) == descriptor["size"]
    (docker,) = json.loads(blobs["manifest.json"])
    assert docker["RepoTags"] == ["tickwheel.io/worker:9"]
    config = json.loads(blobs[docker["Config"]])
    assert config["config"]["User"] == "65532:65532"
    assert config["rootfs"]["diff_ids"] == [digest]


def test_an_archive_that_is_there_is_written_again_only_for_another_image(tmp_path: Path) -> None:
    layer = Layer(tmp_path / "one.tar", pack(_tree(tmp_path / "one", mtime=1), tmp_path / "one.tar"), tmp_path)
    path = tmp_path / "worker.tar"
    write_archive(IMAGES["worker"], "9", [layer], path)
    before = path.stat().st_ino, path.stat().st_mtime_ns
    write_archive(IMAGES["worker"], "9", [layer], path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    write_archive(IMAGES["worker"], "10", [layer], path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) != before
