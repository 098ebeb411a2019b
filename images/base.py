"""The base layer: Debian's Python with the libraries that it needs and nothing else, no shell and no package manager.

apt resolves, downloads and verifies the packages from the mirrors that this machine is configured with, into a state of
its own, so that no root is needed and what is installed here has no say; the packages are unpacked, never configured.
The few files that their scripts would have made are written by hand below.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

from images.errors import ImageError
from images.interpreter import compile_bytecode, run
from images.layers import Layer, cached, digest_of
from images.recipe import USER

__all__ = ["base_layer"]

_WANTED = ("python3", "base-files", "tzdata", "ca-certificates")
_UNWANTED = frozenset(
    # Only for installing and configuring packages, which an image never does.
    {"dpkg", "tar", "debconf", "perl-base", "mawk", "openssl", "install-info", "debianutils"}
    # What only those needed.
    | {"libacl1", "libmd0", "libpcre2-8-0", "libselinux1", "gcc-12-base", "readline-common"}
    # Only for the deprecated module `nis`.
    | {"libnsl2", "libtirpc3", "libtirpc-common", "libgssapi-krb5-2", "libkrb5-3", "libkrb5support0"}
    | {"libk5crypto3", "libkeyutils1", "libcom-err2"}
)
_STRIPPED = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/menu",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/python3",
    "usr/share/binfmts",
    "usr/lib/*/gconv",
    "usr/lib/python3*/test",
    "usr/lib/python3*/idlelib",
    "usr/lib/python3*/lib2to3",
    "usr/lib/python3*/turtledemo",
    "usr/lib/python3*/pydoc_data",
    "usr/lib/python3*/lib-dynload/nis.*",
    "usr/lib/python3*/EXTERNALLY-MANAGED",
    "usr/lib/python3*/config-*",
    "etc/kernel",
    "etc/systemd",
    "etc/update-motd.d",
)
_MAKERS = ("base.py", "interpreter.py", "layers.py")
"""The code that makes this layer decides it too."""
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that are links into /usr, while packages may still name either."""


def base_layer() -> Layer:
    """The base layer, from the cache or made now (half a minute). Raises `ImageError`."""
    release = platform.freedesktop_os_release()
    system = f"{release['ID']} {release.get('VERSION_ID', '')} {platform.machine()}"
    key = digest_of([system, *(Path(__file__).with_name(name).read_bytes() for name in _MAKERS)])
    return cached("base", key, _fill)


def _fill(root: Path) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise ImageError(
                f"there is no {program} here, which packing the base layer needs: use Debian or Ubuntu, or install"
                " Docker, and `make image` builds images/*/Dockerfile instead"
            )
    print("base layer: downloading Debian's Python", flush=True)
    packages = _download(root.with_name("apt"))
    print(f"base layer: unpacking {len(packages)} packages", flush=True)
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        _unpack(package, root)
    shutil.rmtree(root.with_name("apt"))
    for pattern in _STRIPPED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (root / "usr/share/doc").glob("*/*"):  # licences ask that their texts go with the programs
        if path.name != "copyright":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _configure(root)
    (library,) = root.glob("usr/lib/python3.*")
    compile_bytecode(root, root, str(library.relative_to(root)))


def _download(work: Path) -> list[Path]:
    """The packages' files. apt trusts its own keys only, and checks every file against the signed index."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    apt = ["apt-get", "-q", "-y"]
    for option in (
        f"Dir::State::lists={work}/lists",
        f"Dir::State::status={work}/status",
        f"Dir::Cache={work}/cache",
        "Dir::Cache::archives=archives",
        "APT::Sandbox::User=",
        "APT::Update::Post-Invoke-Success::=true",
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    ):
        apt += ["-o", option]
    # Another repository of this machine that does not answer is no reason to stop: the next command decides.
    update = subprocess.run([*apt, "update"], capture_output=True, text=True)  # noqa: S603
    try:
        run([*apt, "install", "--no-install-recommends", "--download-only", *_WANTED], "apt cannot download Python")
    except ImageError as error:
        raise ImageError(f"{error}\n`apt-get update` said before:\n{update.stderr[-1500:]}") from None
    files = sorted((work / "cache/archives").glob("*.deb"))
    return [file for file in files if file.name.partition("_")[0] not in _UNWANTED]


def _unpack(package: Path, root: Path) -> None:
    with subprocess.Popen(  # noqa: S603
        ["dpkg-deb", "--fsys-tarfile", str(package)],  # noqa: S607 - found on PATH above
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                member.name = member.name.removeprefix("./").rstrip("/")
                first, _, rest = member.name.partition("/")
                if first in _MERGED:
                    if not rest:
                        continue
                    member.name = f"usr/{member.name}"
                if member.name and not member.isdev():
                    archive.extract(member, root, set_attrs=not member.isdir(), filter="fully_trusted")
    if process.returncode:
        raise ImageError(f"{package.name} cannot be unpacked: remove the cache and try again")
    # Scanners read the packages of an image without a package manager here.
    control = run(["dpkg-deb", "--field", str(package)], f"{package.name} cannot be read")
    status = root / "var/lib/dpkg/status.d"
    status.mkdir(parents=True, exist_ok=True)
    (status / package.name.partition("_")[0]).write_text(control)


def _configure(root: Path) -> None:
    """What the packages' own scripts would have done, as far as a process that runs as nobody needs it."""
    files = {
        "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\ntickwheel:x:{USER}:{USER}::/tmp:/sbin/nologin\n",
        "etc/group": f"root:x:0:\ntickwheel:x:{USER}:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "etc/ssl/certs/ca-certificates.crt": "".join(
            path.read_text() for path in sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
        ),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    shutil.rmtree(root / "usr/share/ca-certificates")
    (root / "usr/lib/ssl").mkdir(parents=True, exist_ok=True)
    # Where OpenSSL looks when it is told nothing.
    (root / "usr/lib/ssl/cert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    for name in ("tmp", "var/tmp", "handlers", "run", "etc", "usr/local/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for path in [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]:
        path.chmod(0o755)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    shutil.rmtree(root / "var/run")
    (root / "var/run").symlink_to("/run")
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
